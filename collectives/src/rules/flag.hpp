#pragma once

#include <vector>

#include "rules/decision.hpp"
#include "rules/eigen.hpp"

namespace holdfast::rules {

enum class FlagScale { unit, median, paper };

struct FlagParameters {
  int dimension = 0;  ///< m; 0: ceil((n + 1) / 2)
  int iterations = 5;
  double lambda = 0;
  FlagScale scale = FlagScale::unit;
  bool raw_pairs = false;
};

struct FlagResult {
  std::vector<double> coefficients;
  std::vector<double> values;  ///< v_i = ||Y^T u_i||^2 at the end
  std::vector<double> trace;   ///< data term at the start and after each accepted iteration
  bool keeps_start = false;    ///< no iteration improved on the given start: the result is the start itself
};

/// Iteratively reweighted least squares for the flag mean of the rows with this Gram.
/// @param start an explicit first subspace Y0 as Y0^T u_i, one row per dimension; empty: equal weights
[[nodiscard]] FlagResult flag_aggregate(GramMatrix const& gram, FlagParameters const& parameters,
                                        Matrix const& start = {});

}  // namespace holdfast::rules
