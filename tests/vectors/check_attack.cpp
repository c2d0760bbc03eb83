#include <cmath>
#include <optional>

#include <holdfast/runtime/error.hpp>

#include "checks.hpp"
#include "rules/arguments.hpp"
#include "rules/attack_impl.hpp"

namespace holdfast::vectors {
namespace {

/// The attack text of a case, none if the build has no such attack.
std::optional<std::string> attack_text(AttackCase const& given) {
  auto const with = [](std::string const& name, double value) { return name + "(" + rules::number_text(value) + ")"; };
  if (given.attack == "sign_flip_mean") return "sign_flip";
  if (given.attack == "ipm") return with("inner_product", given.number("tau"));
  if (given.attack == "alie_fixed") return with("alie", given.number("tau"));
  if (given.attack == "alie_zmax") return "alie_max";
  if (given.attack == "mimic") return with("mimic", given.number("epsilon"));
  if (given.attack == "min_max" || given.attack == "min_sum") {
    auto const direction = given.words.find("direction");
    if (direction == given.words.end() || direction->second == "-std") return given.attack;
  }
  return std::nullopt;
}

}  // namespace

Result check_attack(AttackCase const& given) {
  Result result;
  auto const text = attack_text(given);
  if (!text) {
    result.verdict = Verdict::skipped;
    result.explanation = "this build has no attack " + given.attack;
    return result;
  }
  AttackContext context;
  context.honest = given.honest;
  context.own = given.honest.front();
  if (given.attack == "alie_zmax") {
    context.contributions = static_cast<int>(given.number("n"));
    context.byzantine = static_cast<int>(given.number("f"));
  }
  try {
    auto const row = Attack::parse(*text).impl().make_row(context);
    result.error64 = relative_error({row}, {given.expected});
  } catch (Error const& error) {
    throw Malformed(given.id + ": " + error.what());
  }
  if (!(result.error64 <= given.tolerance)) {
    result.verdict = Verdict::failed;
    result.explanation =
        "error " + rules::number_text(result.error64) + " above " + rules::number_text(given.tolerance);
  }
  return result;
}

}  // namespace holdfast::vectors
