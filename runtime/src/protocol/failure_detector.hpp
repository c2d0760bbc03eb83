#pragma once

#include <chrono>
#include <vector>

#include "action.hpp"

namespace holdfast::protocol {

/// Who has been silent for too long, judged by this member's own running time.
///
/// Time in which this member did not run (it was stopped, or its host was overloaded) is nobody else's silence: a tick
/// that comes late counts for two periods at most, so a member that wakes up suspects nobody for it.
class FailureDetector {
 public:
  FailureDetector(int world_size, std::chrono::nanoseconds period, std::chrono::nanoseconds timeout);

  void watch(int rank);
  void unwatch(int rank);
  void heard(int rank);

  /// Call once per period.
  /// @return ranks whose silence exceeds the timeout
  [[nodiscard]] std::vector<int> tick(Instant now);
  [[nodiscard]] std::chrono::nanoseconds silence(int rank) const;

 private:
  struct Peer {
    bool is_watched = false;
    bool was_heard = false;  ///< since the last tick
    std::chrono::nanoseconds heard_at{0};
  };

  std::chrono::nanoseconds period_;
  std::chrono::nanoseconds timeout_;
  std::chrono::nanoseconds own_time_{0};
  Instant last_tick_{};
  bool has_ticked_ = false;
  std::vector<Peer> peers_;
};

}  // namespace holdfast::protocol
