#include <cmath>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Repeat v += sum_i w_i min(1, tau / r_i) (x_i - v) / sum w with r_i = ||x_i - v||.
///
/// tau is a fixed number or, adaptive, factor * median r_i in each iteration. v starts at the previous result, or
/// (center = median, the butterfly form of Gorbunov et al., ICML 2022) at the coordinate-wise lower median; then it
/// stops once a step is no longer than the tolerance. Works on the Gram of x_i - v as it was at the start.
class CenteredClipping final : public LinearRule {
 public:
  struct Parameters {
    double threshold = 0;  ///< 0: adaptive
    double factor = 0;
    int iterations = 0;
    CenterSource center = CenterSource::previous;
    double tolerance = 0;
  };
  explicit CenteredClipping(Parameters const& parameters) : parameters_(parameters) {}

  [[nodiscard]] bool uses_weights() const override { return true; }
  [[nodiscard]] CenterSource center() const override { return parameters_.center; }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    auto const n = static_cast<std::size_t>(statistics.contributions);
    auto const& gram = statistics.gram;
    double total_weight = 0;
    for (double const weight : statistics.weights) total_weight += weight;

    // v = start + sum_i offset_i (x_i - start)
    auto const point_distances = PointDistances::from_centred(gram);
    std::vector<double> offset(n, 0);
    for (int iteration = 0; iteration < parameters_.iterations; ++iteration) {
      auto const radii = distances(point_distances, offset);
      double const threshold = parameters_.threshold > 0 ? parameters_.threshold : parameters_.factor * median(radii);
      std::vector<double> share(n);
      double moved = 0;
      for (std::size_t i = 0; i < n; ++i) {
        double const shrink = radii[i] <= threshold ? 1 : threshold / radii[i];
        share[i] = statistics.weights[i] * shrink / total_weight;
        moved += share[i];
      }
      for (std::size_t i = 0; i < n; ++i) share[i] -= offset[i] * moved;
      for (std::size_t i = 0; i < n; ++i) offset[i] += share[i];
      if (parameters_.center == CenterSource::median && norm(gram, share) <= parameters_.tolerance) break;
    }
    double total = 0;
    for (double const coefficient : offset) total += coefficient;
    return std::vector{Combination::of(std::move(offset), 1 - total)};
  }

 private:
  static std::vector<double> distances(PointDistances const& from, std::vector<double> const& offset) {
    auto coefficients = offset;
    double rest = 1;
    for (double const coefficient : offset) rest -= coefficient;
    coefficients.push_back(rest);
    auto result = from.to(coefficients);
    result.pop_back();
    return result;
  }
  static double norm(GramMatrix const& gram, std::vector<double> const& combination) {
    double squared = 0;
    for (std::size_t i = 0; i < combination.size(); ++i) {
      double inner = 0;
      for (std::size_t j = 0; j < combination.size(); ++j)
        inner += gram(static_cast<int>(i), static_cast<int>(j)) * combination[j];
      squared += combination[i] * inner;
    }
    return std::sqrt(squared > 0 ? squared : 0);
  }

  Parameters parameters_;
};

}  // namespace

Entry centered_clipping_entry() {
  return {"centered_clipping",
          "Karimireddy, He, Jaggi: Learning from History for Byzantine Robust Optimization, ICML 2021",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {"threshold"},
          [](Arguments& arguments) -> std::unique_ptr<Step> {
            CenteredClipping::Parameters parameters;
            auto const threshold = arguments.number_or_word("threshold", "adaptive", {0, 1e300, true}, {"adaptive"});
            parameters.threshold = threshold.number.value_or(0);
            parameters.factor = arguments.number("factor", 0.5, {0, 1e6, true});
            bool const butterfly = arguments.choice("center", "previous", {"previous", "median"}) == "median";
            parameters.center = butterfly ? CenterSource::median : CenterSource::previous;
            parameters.iterations = arguments.integer("iterations", butterfly ? 500 : 3, 1, 100'000);
            if (butterfly) parameters.tolerance = arguments.number("tolerance", 1e-6, {0, 1e300, false});
            return std::make_unique<CenteredClipping>(parameters);
          }};
}

}  // namespace holdfast::rules
