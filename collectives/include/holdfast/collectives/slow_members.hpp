#pragma once

#include <chrono>
#include <string_view>

#include <holdfast/runtime/config.hpp>

namespace holdfast {

/// What happens to a member whose training thread comes late to a round.
enum class SlowPolicy : unsigned char {
  wait,   ///< the others wait for it
  skip,   ///< a library thread serves in its place; the round ends without its contribution, and the member stays
  evict,  ///< it leaves the group, and the others go on without it
};

[[nodiscard]] std::string_view name(SlowPolicy policy);

/// When a member is late, and what follows. Equal at all members of a stream.
///
/// A training thread is late once the round took it longer than `factor` times the median of recent rounds and at
/// least half of the members have been waiting for `floor`. It judges itself, by the clock of its own process: what
/// counts is what it then says to the others.
///
/// With skip a member is at most one round behind: the round after one that it missed ends only when its training
/// thread has taken the result of the one that it missed.
struct SlowMembers {
  SlowPolicy policy = SlowPolicy::wait;
  double factor = 4;
  std::chrono::milliseconds floor{500};

  /// As the group's Config says.
  [[nodiscard]] static SlowMembers from(Config const& config);
  /// @throws Error bad_argument unless factor >= 1 and floor >= 0
  void validate() const;
};

}  // namespace holdfast
