#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

/// c_i = w_i / sum w. No robustness: f only lets screening drop rows.
class Mean final : public LinearRule {
 public:
  [[nodiscard]] bool needs_gram() const override { return false; }
  [[nodiscard]] bool uses_weights() const override { return true; }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    double total = 0;
    bool equal = true;
    for (double const weight : statistics.weights) {
      total += weight;
      equal = equal && weight == statistics.weights[0];
    }
    std::vector<double> coefficients;
    for (double const weight : statistics.weights)
      coefficients.push_back(equal ? 1.0 / statistics.contributions : weight / total);
    return std::vector{Combination{std::move(coefficients), equal, 0}};
  }
};

}  // namespace

Entry mean_entry() {
  return {"mean", "-", kLessThanAll, RuleKind::linear, false, {}, [](Arguments&) -> std::unique_ptr<Step> {
            return std::make_unique<Mean>();
          }};
}

}  // namespace holdfast::rules
