#pragma once

#include <cstdint>
#include <span>

namespace holdfast {

/// Accumulation until the members together have a target number of samples (Diskin et al., NeurIPS 2021).
struct MemberProgress {
  std::uint64_t step = 0;
  double samples = 0;      ///< accumulated for this step when it was published
  double rate = 0;         ///< samples per second
  double age_seconds = 0;  ///< since it was published
};

/// Moving average of a member's own speed.
class SampleRate {
 public:
  explicit SampleRate(double alpha = 0.1) : alpha_(alpha) {}
  void add(double samples, double seconds);
  [[nodiscard]] double per_second() const { return rate_; }

 private:
  double alpha_;
  double rate_ = 0;
  bool has_any_ = false;
};

/// Samples that all members of this step have by now, as their last words and speeds say.
[[nodiscard]] double estimated_samples(std::span<MemberProgress const> members, std::uint64_t step);
/// Seconds until the target is reached, 0 if it is; infinite if nobody moves.
[[nodiscard]] double seconds_to_target(std::span<MemberProgress const> members, std::uint64_t step, double target);
/// When to look again: sooner in large groups, within [0.5, 30] seconds.
[[nodiscard]] double next_look_seconds(double seconds_to_target, int members);
/// The weight of a member's row in the average: samples_i / (target / n).
[[nodiscard]] double batch_weight(double samples, double target, int members);
/// More than one step behind the furthest: its state has to be loaded again.
[[nodiscard]] bool is_too_late(std::uint64_t own_step, std::span<MemberProgress const> members);

}  // namespace holdfast
