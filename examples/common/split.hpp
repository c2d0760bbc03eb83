#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace examples {

/// How training rows are divided among members: `iid`, or `dirichlet:ALPHA`, where a small ALPHA gives each member few
/// classes.
struct Split {
  double alpha = 0;  ///< 0: iid

  /// @throws holdfast::Error bad_argument naming the valid forms
  static Split parse(std::string const& text);
  /// Rows of each of `shares` members; a pure function of its arguments. Nobody is left without a row.
  [[nodiscard]] std::vector<std::vector<std::int64_t>> divide(std::span<std::int64_t const> labels, int shares,
                                                              std::uint64_t seed) const;
};

}  // namespace examples
