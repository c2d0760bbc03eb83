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

/// A step of the protocol at one member: the n-th control message from now on that it sends or takes in.
struct Step {
  /// Takes in: what follows inside the member still happens (a round may be committed), and nothing leaves any more.
  /// A cut_at_step is at what it sends.
  bool is_receive = false;
  std::optional<std::size_t> kind;  ///< place among the messages; nothing: any
  std::uint64_t count = 1;
};

/// What goes wrong, and when.
struct Fault {
  enum class Kind {
    kill,
    crash_at_step,  ///< dies at a step of the protocol
    cut_at_step,    ///< from a step on, nothing that it sends arrives
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
  Step step{};
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

/// A schedule in which one thing happens. Beside it, a crash is placed at every step of the protocol in turn.
struct Story {
  char const* name;
  Plan plan;
};
[[nodiscard]] std::vector<Story> stories(std::uint64_t seed);

}  // namespace holdfast::sim
