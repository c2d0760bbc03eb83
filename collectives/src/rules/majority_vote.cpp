#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

/// Per coordinate: the sign of the sum of signs, -1 where they balance.
class MajorityVote final : public CoordinateRule {
 public:
  [[nodiscard]] CoordinateKernel kernel(int /*contributions*/, int /*byzantine*/) const override {
    return {CoordinateKernel::Kind::majority, 0, 0};
  }
};

}  // namespace

Entry majority_vote_entry() {
  return {"majority_vote",
          "Bernstein, Zhao, Azizzadenesheli, Anandkumar: signSGD with Majority Vote, ICLR 2019",
          kLessThanHalf,
          RuleKind::coordinate,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<MajorityVote>(); }};
}

}  // namespace holdfast::rules
