#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::diloco {

/// How P fragments share a period of H inner steps.
enum class Spacing {
  paper,  ///< a gap of H / P rounded to whole steps (halves down) between fragments; the real period is gap * P
  exact,  ///< fragment p at floor(p * H / P); uneven gaps, the period is exactly H
};

/// "paper" or "exact".
/// @throws Error bad_argument
[[nodiscard]] Spacing parse_spacing(std::string_view word);

/// When which fragment is exchanged. Steps are counted from 1.
///
/// Source: Douillard et al. 2025 (arXiv 2501.18512), algorithm 2. A fragment is first exchanged after a whole period of
///         own steps, as in the paper's example.
class Schedule {
 public:
  /// @throws Error bad_argument unless inner_steps >= 1 and fragments >= 1, neither above 2^31
  Schedule(std::int64_t inner_steps, int fragments, Spacing spacing);

  [[nodiscard]] std::int64_t inner_steps() const { return inner_steps_; }
  [[nodiscard]] int fragments() const { return fragments_; }
  [[nodiscard]] Spacing spacing() const { return spacing_; }
  /// Steps between exchanges of one fragment: inner_steps, or what Spacing::paper makes of it.
  [[nodiscard]] std::int64_t period() const { return period_; }
  /// Steps between two fragments with Spacing::paper; 0 with Spacing::exact, where they differ.
  [[nodiscard]] std::int64_t gap() const { return gap_; }
  [[nodiscard]] std::int64_t offset(int fragment) const;

  /// Whether the exchange of `fragment` starts after inner step `step`, for a replica whose own steps began after step
  /// `joined`: it contributes only what a whole period of them has made.
  [[nodiscard]] bool starts(int fragment, std::int64_t step, std::int64_t joined = 0) const;
  /// All that start, in ascending order.
  [[nodiscard]] std::vector<int> starting(std::int64_t step, std::int64_t joined = 0) const;

  /// Demands that a fragment is applied before it is exchanged again.
  /// @throws Error bad_argument unless 0 <= overlap < period()
  void require_overlap(std::int64_t overlap) const;
  /// The largest number of exchanges that are on their way at the same time, over the first `steps` steps.
  [[nodiscard]] int max_in_flight(std::int64_t overlap, std::int64_t steps) const;

  /// What a user should know: that the real period is not the one asked for. Empty if it is.
  [[nodiscard]] std::string warning() const;

 private:
  std::int64_t inner_steps_;
  int fragments_;
  Spacing spacing_;
  std::int64_t gap_ = 0;
  std::int64_t period_ = 0;
};

}  // namespace holdfast::diloco
