#pragma once

#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "rules/decision.hpp"

/// Small deterministic pieces that several rules share.
namespace holdfast::rules {

/// Indices sorted by (value, index): the lower rank wins a tie.
[[nodiscard]] std::vector<int> order(std::span<double const> values);

/// The first `count` of order(values), ascending.
[[nodiscard]] std::vector<int> closest(std::span<double const> values, int count);

/// Average of the two middle values when their number is even.
[[nodiscard]] double median(std::vector<double> values);

/// Distances of all rows to points z = sum_j c_j x_j with sum c = 1, from inner products taken relative to one of the
/// rows: rows that share a large common vector and rows that are huge both keep their digits, and so do distances that
/// are short beside the rows.
class PointDistances {
 public:
  PointDistances(GramMatrix const& gram, int reference_row);
  /// From inner products relative to a centre, which becomes one more row, the last.
  [[nodiscard]] static PointDistances from_centred(GramMatrix const& centred);

  [[nodiscard]] std::vector<double> to(std::span<double const> coefficients) const;

 private:
  /// A squared distance that is less than this part of what it is the difference of is summed in another way.
  static constexpr double kCancelled = 1e-3;

  explicit PointDistances(GramMatrix relative) : relative_(std::move(relative)) {}
  /// ||x_row - z||^2 from inner products relative to the row itself.
  [[nodiscard]] double squared_distance_around(int row, std::span<double const> coefficients) const;

  GramMatrix relative_;
};

}  // namespace holdfast::rules
