#include <cmath>

#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

/// x_i * min(1, c / ||x_i||)
class StaticClipping final : public Mixer {
 public:
  explicit StaticClipping(double longest) : longest_(longest) {}
  [[nodiscard]] bool uses_origin() const override { return true; }

  [[nodiscard]] std::vector<Combination> mix(Statistics const& statistics) const override {
    std::vector<Combination> mixture;
    for (int row = 0; row < statistics.contributions; ++row) {
      double const squared = statistics.gram(row, row);
      double const norm = std::sqrt(squared > 0 ? squared : 0);
      std::vector<double> coefficients(static_cast<std::size_t>(statistics.contributions), 0);
      coefficients[static_cast<std::size_t>(row)] = norm <= longest_ ? 1 : longest_ / norm;
      mixture.push_back(Combination::of(std::move(coefficients)));
    }
    return mixture;
  }

 private:
  double longest_;
};

}  // namespace

Entry static_clipping_entry() {
  return {"static_clipping", "-", kLessThanAll, RuleKind::linear, true, {"c"}, [](Arguments& arguments) {
            double const longest = arguments.number("c", 2, {0, 1e300, true});
            return std::unique_ptr<Step>(std::make_unique<StaticClipping>(longest));
          }};
}

}  // namespace holdfast::rules
