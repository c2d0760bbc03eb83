#pragma once

#include <chrono>
#include <cstdint>

#include <holdfast/runtime/rounds.hpp>

namespace holdfast {

/// What a member's training thread does between two reports.
enum class Activity : std::uint8_t {
  starting,   ///< no round was opened yet
  computing,  ///< outside of any collective
  in_round,   ///< inside a collective of a round
};

/// Travels with every heartbeat, so that a stuck training thread is seen although its process still answers.
struct Progress {
  Activity activity = Activity::starting;
  RoundId round{};                     ///< the open round, or the last one
  std::chrono::milliseconds since{0};  ///< time in this activity, by the member's own clock
};

}  // namespace holdfast
