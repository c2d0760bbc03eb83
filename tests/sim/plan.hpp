#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <protocol/value.hpp>

#include "random.hpp"

namespace holdfast::sim {

using Time = std::int64_t;  ///< microseconds of virtual time
inline constexpr Time kMs = 1'000;

/// What goes wrong, and when.
struct Fault {
  enum class Kind {
    kill,
    crash_at_step,  ///< dies while it sends the n-th message of a kind: a part of the receivers gets it
    stop,
    cut,         ///< one direction of one link
    partition,   ///< two sides
    isolate_in,  ///< a member hears nobody, and is heard
    heal,
    lossy,
    calm,
    join,
    leave,
    accuse,    ///< a data plane blames a healthy member
    impatient  ///< a deaf member opens ballot after ballot
  };
  Time at = 0;
  Kind kind{};
  std::size_t member = 0;
  std::size_t other = 0;
  Time lasts = 0;
  std::size_t message_kind = 0;
  std::size_t count = 0;
};

/// A schedule: everything that is drawn before it begins. The rest is drawn from the same seed while it runs.
struct Plan {
  std::uint64_t seed = 0;
  std::size_t members = 3;
  std::size_t streams = 1;
  protocol::QuorumRule rule = protocol::QuorumRule::majority;
  std::optional<std::size_t> tie_breaker;
  bool is_supervised = false;  ///< every death is certified, some time after it
  bool skips = false;          ///< owners do not wait for late rows
  bool hands_over = false;
  bool heals = true;  ///< the last cuts are healed; if not, a live connected quorum has to do without
  Time faults_end = 0;
  std::vector<Fault> faults;
};

[[nodiscard]] Plan make_plan(std::uint64_t seed, std::size_t fewest, std::size_t most);

}  // namespace holdfast::sim
