#include <cmath>

#include <holdfast/collectives/schemes/variance_correction.hpp>

namespace holdfast {
namespace {

template <class T>
LayerSums sums_of(std::span<T const> layer) {
  LayerSums sums;
  for (T const value : layer) sums.sum += static_cast<double>(value);
  double const mean = layer.empty() ? 0 : sums.sum / static_cast<double>(layer.size());
  for (T const value : layer) {
    double const off = static_cast<double>(value) - mean;
    sums.squares += off * off;
  }
  return sums;
}

}  // namespace

LayerSums LayerSums::of(std::span<double const> layer) {
  return sums_of(layer);
}
LayerSums LayerSums::of(std::span<float const> layer) {
  return sums_of(layer);
}

VarianceCorrection variance_correction(std::span<LayerSums const> members, LayerSums const& average,
                                       std::size_t elements, double eps) {
  auto const count = static_cast<double>(elements);
  double target = 0;
  for (auto const& member : members) target += member.squares / count;
  target /= static_cast<double>(members.size());
  return {average.sum / count, std::sqrt(target / (average.squares / count + eps))};
}

std::vector<double> variance_corrected_average(std::span<std::vector<double> const> layer, double eps) {
  if (layer.empty()) return {};
  std::vector<double> average(layer.front().size(), 0);
  std::vector<LayerSums> members;
  for (auto const& row : layer) {
    for (std::size_t i = 0; i < average.size(); ++i) average[i] += row[i] / static_cast<double>(layer.size());
    members.push_back(LayerSums::of(std::span<double const>(row)));
  }
  if (average.empty()) return average;
  auto const correct =
      variance_correction(members, LayerSums::of(std::span<double const>(average)), average.size(), eps);
  for (auto& value : average) value = correct(value);
  return average;
}

}  // namespace holdfast
