#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plan.hpp"

namespace holdfast::sim {

/// Crashes at every step of the protocol: each story is told once to count what every member sends and takes in, then
/// once more for each of these steps, with a crash there.
struct Crash {
  std::size_t story = 0;
  std::size_t member = 0;
  bool is_receive = false;
  std::uint64_t count = 1;
};

/// As STORY:MEMBER:send:COUNT or STORY:MEMBER:receive:COUNT.
[[nodiscard]] std::string to_text(Crash const& crash);
/// @return nothing for a text of another form
[[nodiscard]] std::optional<Crash> crash_from(std::string const& text);

/// The story with this crash.
/// @throws std::out_of_range for a story that does not exist
[[nodiscard]] Plan plan_of(Crash const& crash, std::uint64_t seed);
/// Every crash of every story.
[[nodiscard]] std::vector<Crash> all_crashes(std::uint64_t seed);

}  // namespace holdfast::sim
