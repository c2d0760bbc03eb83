#pragma once

#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <protocol/membership.hpp>

namespace holdfast::protocol {

/// Some members under OnLoss::end, the messages between them, and virtual time. Links deliver in order, in any
/// interleaving. (tests/sim has views that change, and links that lose and reorder.)
class Simulation {
 public:
  static constexpr std::chrono::milliseconds kPeriod{50};
  static constexpr std::chrono::milliseconds kTimeout{2'000};

  explicit Simulation(int members) {
    std::vector<Seat> seats;
    for (int rank = 0; rank < members; ++rank) seats.push_back({{id(rank), "host", 100 + rank, "here"}, ""});
    auto const first = first_value(seats, QuorumRule::majority, {}, 1);
    MembershipOptions options;
    options.heartbeat_period = kPeriod;
    options.heartbeat_timeout = kTimeout;
    for (int rank = 0; rank < members; ++rank) {
      nodes_.push_back({Membership(first, id(rank), options), std::nullopt, true, true});
      for (int other = 0; other < members; ++other)
        if (other != rank) member(rank).on_connected(id(other), now);
    }
    for (int rank = 0; rank < members; ++rank) {
      member(rank).start(now);
      collect(rank);
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] static MemberId id(int rank) { return MemberId{static_cast<std::uint64_t>(rank)}; }
  Membership& member(int rank) { return node(rank).member; }
  [[nodiscard]] bool is_running(int rank) { return node(rank).is_alive && node(rank).is_awake; }

  /// Takes what a member wants done: messages wait on their links, the timer is noted.
  void collect(int rank) {
    std::vector<action::Any> actions;
    member(rank).take_actions(actions);
    for (auto& one : actions) {
      if (auto* const send = std::get_if<action::Send>(&one)) {
        EXPECT_FALSE(member(rank).is_frozen() && std::holds_alternative<Ready>(send->message) && was_frozen_[rank])
            << "rank " << rank << " sent READY although it is frozen";
        links_[{rank, static_cast<int>(send->to)}].push_back(std::move(send->message));
      } else if (auto const* const timer = std::get_if<action::SetTimer>(&one)) {
        node(rank).timer = timer->at;
      }
    }
    was_frozen_[rank] = member(rank).is_frozen();
  }

  Outcome<void> hold(int rank, RoundId round, Digest digest = {1, 1}) {
    auto held = member(rank).hold(round, digest, {});
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
      member(to).on_connection_lost(id(from), Evidence::process_ended, "killed", now);
    } else {
      auto message = std::move(link.front());
      link.pop_front();
      member(to).on_message(id(from), std::move(message), now);
    }
    collect(to);
  }

  void deliver_all() {
    for (auto ready = deliverable(); !ready.empty(); ready = deliverable())
      deliver(ready.front().first, ready.front().second);
  }

  void advance(std::chrono::nanoseconds time) {
    now += std::chrono::duration_cast<action::Instant::duration>(time);
    for (int rank = 0; rank < size(); ++rank) {
      auto& timer = node(rank).timer;
      if (!is_running(rank) || !timer || *timer > now) continue;
      timer.reset();
      member(rank).on_timer(now);
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

  action::Instant now{std::chrono::hours(1)};

 private:
  struct Node {
    Membership member;
    std::optional<action::Instant> timer;
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
