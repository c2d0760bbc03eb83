#pragma once

namespace holdfast {

/// What the Gram matrix of the rows of a step says about their gradients.
struct GradientSpread {
  double mean_squared = 0;      ///< ||mean of the rows||^2
  double variance = 0;          ///< expected ||row - gradient||^2
  double gradient_squared = 0;  ///< ||gradient||^2, at least a small part of mean_squared

  /// @param trace  sum of the squared norms of the rows
  /// @param total  sum of all entries of the Gram
  [[nodiscard]] static GradientSpread of(double trace, double total, int rows);
};

}  // namespace holdfast
