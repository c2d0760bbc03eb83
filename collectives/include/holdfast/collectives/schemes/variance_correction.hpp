#pragma once

#include <span>
#include <vector>

namespace holdfast {

/// Sums of one layer of one member: all that variance-corrected averaging has to exchange.
struct LayerSums {
  double sum = 0;
  double squares = 0;  ///< about the layer's own mean, so that a large mean costs no digits

  [[nodiscard]] static LayerSums of(std::span<double const> layer);
  [[nodiscard]] static LayerSums of(std::span<float const> layer);
};

/// By what an averaged layer is stretched about its mean so that it has the mean of the members' variances: averaging
/// shrinks the variance of weights that differ (arXiv 2404.04616, algorithm 3).
struct VarianceCorrection {
  double center = 0;
  double factor = 1;

  [[nodiscard]] double operator()(double average) const { return (average - center) * factor + center; }
};

/// @param members  of one layer, one per member
/// @param average  of the mean over members of that layer
/// @param elements of the layer, at least 1
[[nodiscard]] VarianceCorrection variance_correction(std::span<LayerSums const> members, LayerSums const& average,
                                                     std::size_t elements, double eps = 1e-6);

/// The corrected average of one layer whose rows are all here.
[[nodiscard]] std::vector<double> variance_corrected_average(std::span<std::vector<double> const> layer, double eps);

}  // namespace holdfast
