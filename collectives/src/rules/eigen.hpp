#pragma once

#include <vector>

#include "rules/decision.hpp"

/// Small dense decompositions whose bits depend on their input alone: Jacobi rotations in a fixed order, nothing but
/// + - * / and sqrt.
namespace holdfast::rules {

/// Rows of equal length.
using Matrix = std::vector<std::vector<double>>;

struct Eigen {
  std::vector<double> values;  ///< descending
  Matrix vectors;              ///< vectors[k] belongs to values[k]; orthonormal
};

/// All eigenpairs of a symmetric matrix (cyclic Jacobi).
[[nodiscard]] Eigen symmetric_eigen(GramMatrix matrix);

/// Left singular vectors of a matrix given by its rows, by descending singular value (one-sided Jacobi).
[[nodiscard]] Matrix left_singular_vectors(Matrix rows);

}  // namespace holdfast::rules
