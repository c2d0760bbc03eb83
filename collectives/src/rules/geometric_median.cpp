#include <algorithm>
#include <cmath>
#include <numeric>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Smoothed Weiszfeld: repeat z = sum b_i x_i / sum b_i with b_i = w_i / max(||x_i - z||, nu).
///
/// start = medoid: z begins at the row with the least sum of distances, nu = smoothing * median distance to it; so the
/// result follows any shift and scale of the rows. start = zero: z = 0 and a fixed nu, as in the source; it turns into
/// the mean when rows become shorter than nu.
class GeometricMedian final : public LinearRule {
 public:
  GeometricMedian(bool from_zero, double smoothing, double absolute_smoothing, int iterations)
      : from_zero_(from_zero),
        smoothing_(smoothing),
        absolute_smoothing_(absolute_smoothing),
        iterations_(iterations) {}

  [[nodiscard]] bool uses_weights() const override { return true; }
  [[nodiscard]] bool uses_origin() const override { return from_zero_; }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    auto const n = static_cast<std::size_t>(statistics.contributions);
    auto const squared = statistics.gram.squared_distances();
    std::vector<double> totals;
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<double> to_others;
      for (std::size_t j = 0; j < n; ++j)
        to_others.push_back(std::sqrt(squared(static_cast<int>(i), static_cast<int>(j))));
      std::sort(to_others.begin(), to_others.end());  // rows with the same distances, in whatever order, must tie
      totals.push_back(std::accumulate(to_others.begin(), to_others.end(), 0.0));
    }
    int const medoid = order(totals).front();

    PointDistances const point_distances(statistics.gram, medoid);
    std::vector<double> distances(n);
    double nu = absolute_smoothing_;
    if (from_zero_) {
      for (std::size_t i = 0; i < n; ++i) {
        double const norm = statistics.gram(static_cast<int>(i), static_cast<int>(i));
        distances[i] = std::sqrt(norm > 0 ? norm : 0);
      }
    } else {
      for (std::size_t i = 0; i < n; ++i) distances[i] = std::sqrt(squared(medoid, static_cast<int>(i)));
      double const radius = median(distances);
      if (radius == 0) return std::vector{Combination::mean_of(statistics.contributions, std::vector{medoid})};
      nu = smoothing_ * radius;
    }

    std::vector<double> coefficients(n, 0);
    for (int iteration = 0; iteration < iterations_; ++iteration) {
      if (iteration != 0) distances = point_distances.to(coefficients);
      double total = 0;
      for (std::size_t i = 0; i < n; ++i) {
        coefficients[i] = statistics.weights[i] / std::max(distances[i], nu);
        total += coefficients[i];
      }
      for (auto& coefficient : coefficients) coefficient /= total;
    }
    return std::vector{Combination::of(std::move(coefficients))};
  }

 private:
  bool from_zero_;
  double smoothing_;
  double absolute_smoothing_;
  int iterations_;
};

}  // namespace

Entry geometric_median_entry() {
  return {"geometric_median",
          "Pillutla, Kakade, Harchaoui: Robust Aggregation for Federated Learning, IEEE TSP 2022",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {},
          [](Arguments& arguments) -> std::unique_ptr<Step> {
            bool const from_zero = arguments.choice("start", "medoid", {"medoid", "zero"}) == "zero";
            double const smoothing = arguments.number("smoothing", 0.1, {0, 1e6, true});
            double const absolute = arguments.number("absolute_smoothing", 0.1, {0, 1e300, true});
            int const iterations = arguments.integer("iterations", 32, 1, 100'000);
            return std::make_unique<GeometricMedian>(from_zero, smoothing, absolute, iterations);
          }};
}

}  // namespace holdfast::rules
