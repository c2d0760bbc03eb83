#pragma once

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include <holdfast/runtime/group.hpp>

namespace holdfast::testing {

/// Short lines and quiet tests.
inline Config quiet_config() {
  Config config;
  config.log_level = "off";
  return config;
}

/// Nobody is lost by mistake while the machine is busy.
inline Config patient_config() {
  Config config;
  config.heartbeat_timeout = std::chrono::seconds(10);
  return config;
}

/// The group ends when a member is lost or leaves, and only then: threads of one process die together.
inline Config ending_config() {
  auto config = quiet_config();
  config.on_loss = "end";
  config.heartbeat_timeout = std::chrono::seconds(2);
  return config;
}

/// Runs `body(group, rank)` on one thread per member and waits for all.
inline void run_members(std::vector<Group>& groups, std::function<void(Group&, int)> const& body) {
  std::vector<std::jthread> threads;
  for (std::size_t rank = 0; rank < groups.size(); ++rank)
    threads.emplace_back([&, rank] { body(groups[rank], static_cast<int>(rank)); });
}

inline std::vector<std::byte> bytes_of(std::string_view text) {
  auto const* const begin = reinterpret_cast<std::byte const*>(text.data());
  return {begin, begin + text.size()};
}

inline std::string text_of(std::vector<std::byte> const& bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

}  // namespace holdfast::testing
