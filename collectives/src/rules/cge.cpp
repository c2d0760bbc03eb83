#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// The mean of the n-f rows of least norm.
class Cge final : public LinearRule {
 public:
  [[nodiscard]] bool uses_origin() const override { return true; }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    int const n = statistics.contributions;
    std::vector<double> squared_norms;
    for (int row = 0; row < n; ++row) squared_norms.push_back(statistics.gram(row, row));
    return std::vector{Combination::mean_of(n, closest(squared_norms, n - statistics.byzantine))};
  }
};

}  // namespace

Entry cge_entry() {
  return {"cge",
          "Gupta, Liu, Vaidya: Byzantine Fault-Tolerant Distributed Machine Learning using Comparative Gradient "
          "Elimination, 2021",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<Cge>(); }};
}

}  // namespace holdfast::rules
