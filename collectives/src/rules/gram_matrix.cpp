#include "rules/decision.hpp"

namespace holdfast::rules {

GramMatrix GramMatrix::from_packed(int rows, std::span<double const> packed_upper) {
  GramMatrix matrix(rows);
  std::size_t next = 0;
  for (int i = 0; i < rows; ++i)
    for (int j = i; j < rows; ++j) matrix(i, j) = matrix(j, i) = packed_upper[next++];
  return matrix;
}

GramMatrix GramMatrix::subset(std::span<int const> rows) const {
  GramMatrix result(static_cast<int>(rows.size()));
  for (int i = 0; i < result.rows(); ++i)
    for (int j = 0; j < result.rows(); ++j)
      result(i, j) = (*this)(rows[static_cast<std::size_t>(i)], rows[static_cast<std::size_t>(j)]);
  return result;
}

GramMatrix GramMatrix::squared_distances() const {
  GramMatrix distances(rows_);
  for (int i = 0; i < rows_; ++i) {
    for (int j = i + 1; j < rows_; ++j) {
      double const squared = (*this)(i, i) + (*this)(j, j) - 2 * (*this)(i, j);
      distances(i, j) = distances(j, i) = squared > 0 ? squared : 0;
    }
  }
  return distances;
}

}  // namespace holdfast::rules
