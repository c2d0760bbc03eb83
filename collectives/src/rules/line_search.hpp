#pragma once

#include <functional>

namespace holdfast::rules {

/// Looks for a large value of a function of x >= 0 with few evaluations: steps that double while they pay, then steps
/// that shrink.
struct LineSearch {
  int evaluations = 16;
  double start = 0;
  double delta = 1;
  double ratio = 0.8;
  bool returns = true;  ///< whether shrinking steps go back as well, from where the last one ended

  /// @return the best x that was looked at; the first of equals
  [[nodiscard]] double maximum(std::function<double(double)> const& value) const;
};

}  // namespace holdfast::rules
