#pragma once

#include <chrono>
#include <map>

#include "actions.hpp"

namespace holdfast::protocol {

/// Who has been silent for too long, judged by this member's own running time.
///
/// Time in which this member did not run (it was stopped, or its host was overloaded) is nobody else's silence: a tick
/// that comes late counts for two periods at most. Each false suspicion doubles the patience with that member, up to
/// eight times, so that a member that is merely slow is not suspected for ever.
class AdaptiveDetector {
 public:
  AdaptiveDetector(std::chrono::nanoseconds period, std::chrono::nanoseconds timeout);

  /// Begins to listen to a member, as if it had just been heard; its patience is kept if it was watched before.
  void watch(MemberId member);
  void unwatch(MemberId member);
  void heard(MemberId member);
  /// Call once per period.
  void tick(action::Instant now);

  [[nodiscard]] bool is_silent(MemberId member) const;
  [[nodiscard]] std::chrono::nanoseconds silence(MemberId member) const;
  [[nodiscard]] std::chrono::nanoseconds patience(MemberId member) const;

 private:
  struct Peer {
    std::chrono::nanoseconds heard_at{0};
    std::chrono::nanoseconds patience{0};
    bool was_heard = false;  ///< since the last tick
    bool is_silent = false;
  };

  std::chrono::nanoseconds period_;
  std::chrono::nanoseconds timeout_;
  std::chrono::nanoseconds own_time_{0};
  action::Instant last_tick_{};
  bool has_ticked_ = false;
  std::map<MemberId, Peer> peers_;
};

}  // namespace holdfast::protocol
