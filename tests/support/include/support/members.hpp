#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/group.hpp>

namespace holdfast::testing {

/// Members end at different moments: where nobody is lost, nobody's end may shrink what the others still compare with.
inline Config fixed_members(Config config = {}) {
  config.on_loss = "end";
  config.heartbeat_timeout = std::chrono::seconds(2);
  return config;
}

/// Runs `member(communicator)` once per member, each in a thread of its own, and waits for all.
/// The first exception of a member is thrown again here.
template <typename Function>
void run_members(int members, CommunicatorOptions const& options, Function const& member) {
  auto groups = Group::in_threads(members, fixed_members());
  std::vector<std::exception_ptr> failures(groups.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < groups.size(); ++rank)
      threads.emplace_back([&, rank, group = std::move(groups[rank])] {
        try {
          Communicator communicator(group, options);
          member(communicator);
        } catch (...) {
          failures[rank] = std::current_exception();
        }
      });
  }
  for (auto const& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

template <typename Function>
void run_members(int members, std::string const& fabric, Function const& member) {
  CommunicatorOptions options;
  options.fabric = fabric;
  run_members(members, options, member);
}

}  // namespace holdfast::testing
