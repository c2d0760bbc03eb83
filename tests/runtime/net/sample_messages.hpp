#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <protocol/message.hpp>

/// Messages with every field filled, for tests of what carries them.
namespace holdfast::net::testing_messages {

using namespace protocol;

inline Seat seat(std::uint64_t id) {
  return {{MemberId{id}, "host" + std::to_string(id), static_cast<std::int64_t>(100 + id), "boot/net"}, "10.0.0.1:7"};
}

inline Value value() {
  Value value;
  value.number = ViewId{8};
  value.seats = {seat(1), seat(4), seat(9)};
  value.verdicts = {{StreamId{2}, 41, {1, 2}, {}, {}}, {StreamId{3}, 7, {3, 4}, {MemberId{1}, MemberId{9}}, {5, 6}}};
  value.quorum = QuorumRule::certified;
  value.tie_breaker = MemberId{4};
  value.highest_named = MemberId{11};
  value.seed = 0xFFFF'FFFF'FFFF'FFFE;
  return value;
}

inline Promise promise() {
  return {ViewId{7},
          {3, MemberId{4}},
          {{StreamId{2}, 40, 41, {1, 1}, {2, 2}}, {StreamId{3}, 7, 7, {3, 3}, {3, 3}}},
          {2, MemberId{1}},
          value()};
}

/// One of each kind, each field filled: its place is its kind.
inline std::vector<Message> one_of_each() {
  Failure failure;
  failure.code = Errc::member_lost;
  failure.failed_members = {MemberId{3}, MemberId{4}};
  failure.detail = "gone";
  Heartbeat heartbeat{{Activity::in_round, {StreamId{5}, 6}, std::chrono::milliseconds(7)}};
  heartbeat.view = ViewId{8};
  heartbeat.sequence = 9;
  heartbeat.suspects = {MemberId{1}, MemberId{3}};
  heartbeat.certified = {MemberId{3}};
  heartbeat.is_blocked = true;
  heartbeat.is_leaving = true;
  heartbeat.promised = {4, MemberId{1}};
  heartbeat.open = {{ViewId{8}, {StreamId{2}, 3}, {4, 5}}};
  return {Hello{1, "job", 0xFFFF'FFFF'FFFF'FFFF, 2, 1},
          Welcome{},
          Refused{"no"},
          heartbeat,
          Ready{ViewId{1}, {StreamId{2}, 3}, {4, 5}},
          Contribution{ViewId{1}, "key", 2, {std::byte{1}, std::byte{2}}},
          ViewFailed{failure},
          Leave{{{ViewId{1}, {StreamId{2}, 3}, {4, 5}}}},
          Prepare{value(), {5, MemberId{1}}},
          promise(),
          Preempted{ViewId{7}, {3, MemberId{4}}, {5, MemberId{1}}},
          Propose{ViewId{7}, {5, MemberId{1}}, value()},
          Accepted{ViewId{7}, {5, MemberId{1}}},
          Decided{value()},
          LearnerState{seat(12), {{StreamId{2}, 41, {1, 2}}, {StreamId{3}, 7, {3, 4}}}, false},
          FenceRequest{ViewId{8}, {MemberId{1}, MemberId{4}}, MemberId{1}, MemberId{4}},
          Certificate{MemberId{4}},
          Knock{kProtocolVersion, "record"},
          Seats{MemberId{12}, value()},
          Ask{"key"},
          Notice{"key", true, {{"name", "value"}}},
          Reachable{"tcp://10.0.0.1:4711"}};
}

}  // namespace holdfast::net::testing_messages
