#include "rules/selection.hpp"

#include <algorithm>
#include <numeric>

namespace holdfast::rules {

std::vector<int> order(std::span<double const> values) {
  std::vector<int> indices(values.size());
  std::iota(indices.begin(), indices.end(), 0);
  std::stable_sort(indices.begin(), indices.end(), [&](int a, int b) {
    return values[static_cast<std::size_t>(a)] < values[static_cast<std::size_t>(b)];
  });
  return indices;
}

std::vector<int> closest(std::span<double const> values, int count) {
  auto indices = order(values);
  indices.resize(static_cast<std::size_t>(count));
  std::sort(indices.begin(), indices.end());
  return indices;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  auto const n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

PointDistances::PointDistances(GramMatrix const& gram, int reference_row) : relative_(gram.rows()) {
  int const r = reference_row;
  for (int i = 0; i < gram.rows(); ++i)
    for (int j = i; j < gram.rows(); ++j)
      relative_(i, j) = relative_(j, i) = (gram(i, j) - gram(i, r)) - (gram(r, j) - gram(r, r));
}

PointDistances PointDistances::from_centred(GramMatrix const& centred) {
  GramMatrix relative(centred.rows() + 1);
  for (int i = 0; i < centred.rows(); ++i)
    for (int j = 0; j < centred.rows(); ++j) relative(i, j) = centred(i, j);
  return PointDistances(std::move(relative));
}

std::vector<double> PointDistances::to(std::span<double const> coefficients) const {
  int const n = relative_.rows();
  std::vector<double> inner(coefficients.size(), 0);
  double squared_norm = 0;
  for (int i = 0; i < n; ++i) {
    double sum = 0;
    for (int j = 0; j < n; ++j) sum += relative_(i, j) * coefficients[static_cast<std::size_t>(j)];
    inner[static_cast<std::size_t>(i)] = sum;
    squared_norm += coefficients[static_cast<std::size_t>(i)] * sum;
  }
  std::vector<double> distances(coefficients.size());
  for (int i = 0; i < n; ++i) {
    double squared = relative_(i, i) - 2 * inner[static_cast<std::size_t>(i)] + squared_norm;
    if (squared < kCancelled * (relative_(i, i) + squared_norm)) squared = squared_distance_around(i, coefficients);
    distances[static_cast<std::size_t>(i)] = std::sqrt(squared > 0 ? squared : 0);
  }
  return distances;
}

double PointDistances::squared_distance_around(int row, std::span<double const> coefficients) const {
  int const n = relative_.rows();
  double squared = 0;
  for (int j = 0; j < n; ++j) {
    double const c = coefficients[static_cast<std::size_t>(j)];
    if (j == row || c == 0) continue;
    double sum = 0;
    for (int k = 0; k < n; ++k) {
      if (k == row) continue;
      double const inner = (relative_(j, k) - relative_(j, row)) - (relative_(row, k) - relative_(row, row));
      sum += inner * coefficients[static_cast<std::size_t>(k)];
    }
    squared += c * sum;
  }
  return squared;
}

}  // namespace holdfast::rules
