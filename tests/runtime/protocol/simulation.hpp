#pragma once

#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <protocol/core.hpp>

namespace holdfast::protocol {

/// Some cores, the messages between them, and virtual time. Links deliver in order, in any interleaving.
class Simulation {
 public:
  static constexpr std::chrono::milliseconds kPeriod{50};
  static constexpr std::chrono::milliseconds kTimeout{2'000};

  explicit Simulation(int members) {
    View view;
    view.id = ViewId{1};
    for (int rank = 0; rank < members; ++rank)
      view.members.push_back({MemberId{static_cast<std::uint64_t>(rank)}, "host", 100 + rank, "here"});
    for (int rank = 0; rank < members; ++rank) {
      nodes_.push_back({Core(view, rank, {kPeriod, kTimeout}), std::nullopt, true, true});
      for (int other = 0; other < members; ++other)
        if (other != rank) core(rank).on_connected(other);
    }
    for (int rank = 0; rank < members; ++rank) {
      core(rank).start(now);
      collect(rank);
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(nodes_.size()); }
  Core& core(int rank) { return node(rank).core; }
  [[nodiscard]] bool is_running(int rank) { return node(rank).is_alive && node(rank).is_awake; }

  /// Takes what a core wants done: messages wait on their links, the timer is noted.
  void collect(int rank) {
    std::vector<Action> actions;
    core(rank).take_actions(actions);
    for (auto& action : actions) {
      if (auto* const send = std::get_if<Send>(&action)) {
        EXPECT_FALSE(core(rank).is_frozen() && std::holds_alternative<Ready>(send->message) && was_frozen_[rank])
            << "rank " << rank << " sent READY although it is frozen";
        links_[{rank, send->rank}].push_back(std::move(send->message));
      } else if (auto const* const timer = std::get_if<SetTimer>(&action)) {
        node(rank).timer = timer->at;
      }
    }
    was_frozen_[rank] = core(rank).is_frozen();
  }

  Outcome<void> hold(int rank, RoundId round, Digest digest = {1, 1}) {
    auto held = core(rank).hold(round, digest, {});
    collect(rank);
    return held;
  }

  /// Links on which something can be delivered now, the news of a broken connection included.
  [[nodiscard]] std::vector<std::pair<int, int>> deliverable() {
    std::vector<std::pair<int, int>> found;
    for (int from = 0; from < size(); ++from)
      for (int to = 0; to < size(); ++to)
        if (from != to && is_running(to) && (!links_[{from, to}].empty() || has_unseen_end(from, to)))
          found.emplace_back(from, to);
    return found;
  }

  void deliver(int from, int to) {
    auto& link = links_[{from, to}];
    if (link.empty()) {
      seen_ends_[{from, to}] = true;
      core(to).on_connection_lost(from, Core::Evidence::process_ended, "killed", now);
    } else {
      auto message = std::move(link.front());
      link.pop_front();
      core(to).on_message(from, std::move(message), now);
    }
    collect(to);
  }

  void deliver_all() {
    for (auto ready = deliverable(); !ready.empty(); ready = deliverable())
      deliver(ready.front().first, ready.front().second);
  }

  void advance(std::chrono::nanoseconds time) {
    now += std::chrono::duration_cast<Instant::duration>(time);
    for (int rank = 0; rank < size(); ++rank) {
      auto& timer = node(rank).timer;
      if (!is_running(rank) || !timer || *timer > now) continue;
      timer.reset();
      core(rank).on_timer(now);
      collect(rank);
    }
  }

  /// Time passes in periods, everything is delivered.
  void run(std::chrono::nanoseconds time) {
    for (auto const end = now + time; now < end;) {
      advance(kPeriod);
      deliver_all();
    }
  }

  void kill(int rank) { node(rank).is_alive = false; }
  void stop(int rank) { node(rank).is_awake = false; }
  void resume(int rank) { node(rank).is_awake = true; }

  Instant now{std::chrono::hours(1)};

 private:
  struct Node {
    Core core;
    std::optional<Instant> timer;
    bool is_alive;
    bool is_awake;
  };
  Node& node(int rank) { return nodes_[static_cast<std::size_t>(rank)]; }
  bool has_unseen_end(int from, int to) { return !node(from).is_alive && !seen_ends_[{from, to}]; }

  std::vector<Node> nodes_;
  std::map<std::pair<int, int>, std::deque<Message>> links_;
  std::map<std::pair<int, int>, bool> seen_ends_;
  std::map<int, bool> was_frozen_;
};

}  // namespace holdfast::protocol
