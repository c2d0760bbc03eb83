#pragma once

#include <cmath>
#include <span>
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

/// Distances of all rows to points z = sum_j c_j x_j with sum c = 1,
/// from inner products taken relative to one of the rows: rows that share a large common vector and rows
/// that are huge both keep their digits.
class PointDistances {
 public:
  PointDistances(GramMatrix const& gram, int reference_row);
  [[nodiscard]] std::vector<double> to(std::span<double const> coefficients) const;

 private:
  GramMatrix relative_;
};

}  // namespace holdfast::rules
