#include "checks.hpp"

namespace holdfast::vectors {

Result check_attack(AttackCase const& given) {
  Result result;
  result.verdict = Verdict::skipped;
  result.explanation = "this build has no attack " + given.attack;
  return result;
}

}  // namespace holdfast::vectors
