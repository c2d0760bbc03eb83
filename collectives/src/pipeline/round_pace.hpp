#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>

#include <holdfast/collectives/slow_members.hpp>

namespace holdfast::pipeline {

/// How long rounds of a stream take, and whether this member is late for the one that is open. It is told the time.
class RoundPace {
 public:
  using Instant = std::chrono::steady_clock::time_point;

  explicit RoundPace(SlowMembers const& slow = {}) : slow_(slow) {}

  /// A round ended: the next one begins.
  void ended(Instant now);
  /// This member came to the round.
  void came(Instant now) { sample(now); }
  /// Half of the members wait for this one.
  void half_waits(Instant now);

  [[nodiscard]] bool is_late(Instant now) const;
  /// What a round may take; zero until enough is known.
  [[nodiscard]] std::chrono::nanoseconds limit() const;
  /// Since the last round ended.
  [[nodiscard]] std::chrono::nanoseconds elapsed(Instant now) const;

 private:
  // The time until half of the members had come: what waiting adds to a round must not make the limit grow.
  void sample(Instant now);

  SlowMembers slow_;
  std::optional<Instant> began_;
  std::optional<Instant> half_since_;
  bool is_sampled_ = false;
  std::deque<std::chrono::nanoseconds> recent_;
};

}  // namespace holdfast::pipeline
