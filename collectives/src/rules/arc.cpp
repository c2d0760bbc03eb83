#include <cmath>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// The k = floor(2 f (n-f) / n) longest rows are shortened to the norm of the longest of the others.
class AdaptiveRobustClipping final : public Mixer {
 public:
  [[nodiscard]] bool uses_origin() const override { return true; }

  [[nodiscard]] std::vector<Combination> mix(Statistics const& statistics) const override {
    int const n = statistics.contributions;
    int const f = statistics.byzantine;
    int const clipped = 2 * f * (n - f) / n;
    std::vector<double> norms;
    for (int row = 0; row < n; ++row) {
      double const squared = statistics.gram(row, row);
      norms.push_back(std::sqrt(squared > 0 ? squared : 0));
    }
    auto const by_length = order(norms);
    double const longest = norms[static_cast<std::size_t>(by_length[static_cast<std::size_t>(n - clipped - 1)])];
    std::vector<Combination> mixture;
    for (int row = 0; row < n; ++row) {
      double const norm = norms[static_cast<std::size_t>(row)];
      std::vector<double> coefficients(static_cast<std::size_t>(n), 0);
      coefficients[static_cast<std::size_t>(row)] = norm <= longest ? 1 : longest / norm;
      mixture.push_back(Combination::of(std::move(coefficients)));
    }
    return mixture;
  }
};

}  // namespace

Entry arc_entry() {
  return {"arc",
          "Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan: Adaptive Gradient Clipping for Robust Federated "
          "Learning, 2025",
          kLessThanHalf,
          RuleKind::linear,
          true,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<AdaptiveRobustClipping>(); }};
}

}  // namespace holdfast::rules
