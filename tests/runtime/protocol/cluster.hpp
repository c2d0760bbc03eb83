#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <protocol/membership.hpp>

namespace holdfast::protocol {

/// Some members whose views change (OnLoss::shrink), the messages between them, and virtual time. What is sent arrives
/// in order within one step of time, unless its link is cut. (tests/sim has links that lose, delay and reorder.)
class Cluster {
 public:
  static constexpr std::chrono::milliseconds kPeriod{50};
  static constexpr std::chrono::milliseconds kTimeout{500};

  explicit Cluster(std::uint64_t members, QuorumRule rule = QuorumRule::majority,
                   std::optional<MemberId> tie_breaker = {}) {
    std::vector<Seat> seats;
    for (std::uint64_t id = 0; id < members; ++id) seats.push_back(seat(id));
    auto const first = first_value(seats, rule, tie_breaker, 1);
    for (std::uint64_t id = 0; id < members; ++id)
      add(id, std::make_unique<Membership>(first, MemberId{id}, options(id)));
  }

  /// A newcomer, which knows where everybody in `contacts` is.
  void join(std::uint64_t id, std::vector<std::uint64_t> const& contacts) {
    add(id, std::make_unique<Membership>(seat(id), options(id)));
    for (auto const contact : contacts) at(id).on_connected(MemberId{contact}, now);
    collect(id);
  }

  Membership& at(std::uint64_t id) { return *nodes_.at(id).member; }
  [[nodiscard]] std::vector<action::InstallView> const& installed(std::uint64_t id) { return nodes_.at(id).installed; }
  [[nodiscard]] bool was_evicted(std::uint64_t id) { return nodes_.at(id).is_evicted; }
  [[nodiscard]] bool has_ended(std::uint64_t id) { return nodes_.at(id).has_ended; }
  [[nodiscard]] std::vector<FenceRequest> const& fences(std::uint64_t id) { return nodes_.at(id).fences; }
  [[nodiscard]] MemberSet members(std::uint64_t id) { return at(id).value().members(); }

  void kill(std::uint64_t id) { nodes_.at(id).is_running = false; }
  void stop(std::uint64_t id) { nodes_.at(id).is_running = false; }
  void resume(std::uint64_t id) { nodes_.at(id).is_running = true; }
  void certify(std::uint64_t dead) {
    for (auto& [id, node] : nodes_)
      if (node.is_running) {
        node.member->on_connection_lost(MemberId{dead}, Evidence::process_ended, "seen to end", now);
        collect(id);
      }
  }
  /// Drops a member that has ended, and what is known here of the past.
  void forget(std::uint64_t id) {
    nodes_.erase(id);
    for (auto& [other, node] : nodes_) node.installed.clear();
  }
  void cut(std::uint64_t from, std::uint64_t to) { cuts_.insert({from, to}); }
  void cut_apart(std::vector<std::uint64_t> const& left, std::vector<std::uint64_t> const& right) {
    for (auto const one : left)
      for (auto const other : right) {
        cut(one, other);
        cut(other, one);
      }
  }
  void heal() { cuts_.clear(); }
  /// A message as if `from` had sent it.
  void deliver(std::uint64_t from, std::uint64_t to, Message message) {
    at(to).on_message(MemberId{from}, std::move(message), now);
    collect(to);
  }
  Outcome<void> hold(std::uint64_t id, RoundId round, Digest digest = {1, 1}) {
    auto held = at(id).hold(round, digest, {});
    collect(id);
    return held;
  }
  /// Every member in its newest view holds the round, and what follows is delivered.
  void commit(RoundId round, std::vector<std::uint64_t> const& ids, Digest digest = {1, 1}) {
    for (auto const id : ids) ASSERT_TRUE(hold(id, round, digest));
    deliver_all();
    for (auto const id : ids) {
      ASSERT_TRUE(at(id).is_committed(round).value_or(false)) << "member " << id;
      at(id).note_state({round.stream, round.number, digest}, now);
      collect(id);
    }
  }
  void leave(std::uint64_t id) {
    at(id).leave(now);
    collect(id);
  }

  void run(std::chrono::nanoseconds time) {
    for (auto const end = now + time; now < end;) {
      now += std::chrono::milliseconds(10);
      for (auto& [id, node] : nodes_) {
        if (!node.is_running || node.has_ended || !node.timer || *node.timer > now) continue;
        node.timer.reset();
        node.member->on_timer(now);
        collect(id);
      }
      deliver_all();
    }
  }
  void deliver_all() {
    while (!wire_.empty()) {
      auto [from, to, message] = std::move(wire_.front());
      wire_.pop_front();
      auto const node = nodes_.find(to);
      if (node == nodes_.end() || cuts_.contains({from, to})) continue;
      if (!node->second.is_running || node->second.has_ended) continue;
      deliver(from, to, std::move(message));
    }
  }

  action::Instant now{std::chrono::hours(1)};

 private:
  struct Node {
    std::unique_ptr<Membership> member;
    std::optional<action::Instant> timer;
    std::vector<action::InstallView> installed;
    std::vector<FenceRequest> fences;
    bool is_running = true;
    bool is_evicted = false;
    bool has_ended = false;
  };
  struct Letter {
    std::uint64_t from;
    std::uint64_t to;
    Message message;
  };

  static Seat seat(std::uint64_t id) {
    return {{MemberId{id}, "host", static_cast<std::int64_t>(100 + id), "here"}, ""};
  }
  [[nodiscard]] MembershipOptions options(std::uint64_t id) const {
    MembershipOptions options;
    options.heartbeat_period = kPeriod;
    options.heartbeat_timeout = kTimeout;
    options.on_loss = OnLoss::shrink;
    options.fence_after = std::chrono::milliseconds(200);
    options.learner_patience = std::chrono::milliseconds(400);
    options.seed = id;
    return options;
  }
  void add(std::uint64_t id, std::unique_ptr<Membership> member) {
    nodes_[id].member = std::move(member);
    at(id).start(now);
    collect(id);
  }
  void collect(std::uint64_t id) {
    auto& node = nodes_.at(id);
    std::vector<action::Any> actions;
    node.member->take_actions(actions);
    for (auto& one : actions) {
      if (auto* const send = std::get_if<action::Send>(&one))
        wire_.push_back({id, static_cast<std::uint64_t>(send->to), std::move(send->message)});
      else if (auto const* const timer = std::get_if<action::SetTimer>(&one))
        node.timer = timer->at;
      else if (auto* const install = std::get_if<action::InstallView>(&one))
        node.installed.push_back(std::move(*install));
      else if (auto* const fence = std::get_if<action::RequestFence>(&one))
        node.fences.push_back(std::move(fence->request));
      else if (std::holds_alternative<action::Evicted>(one))
        node.is_evicted = true;
      else if (std::holds_alternative<action::Ended>(one))
        node.has_ended = true;
    }
  }

  std::map<std::uint64_t, Node> nodes_;
  std::deque<Letter> wire_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> cuts_;
};

}  // namespace holdfast::protocol
