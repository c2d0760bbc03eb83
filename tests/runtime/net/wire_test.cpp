#include <random>
#include <utility>
#include <variant>

#include <gtest/gtest.h>
#include <net/wire.hpp>

#include "sample_messages.hpp"

namespace holdfast::net {
namespace {

using namespace protocol;
using namespace testing_messages;
using Fields = std::vector<std::pair<std::string, std::string>>;

std::span<std::byte const> body(Bytes const& frame) {
  return std::span(frame).subspan(kHeaderBytes);
}

template <typename Type>
Type round_trip(Type const& message) {
  auto const decoded = decode_body(body(encode(Message(message))));
  EXPECT_TRUE(decoded) << decoded.error().detail;
  return std::get<Type>(*decoded);
}

TEST(Wire, brings_back_every_message) {
  EXPECT_EQ(round_trip(Hello{1, "job", 77, 2, 1}).token, 77U);
  EXPECT_EQ(round_trip(Refused{"reason"}).reason, "reason");
  EXPECT_EQ(round_trip(Ready{ViewId{1}, {StreamId{2}, 3}, {4, 5}}).digest, (Digest{4, 5}));
  EXPECT_EQ(round_trip(Contribution{ViewId{1}, "key", 2, {std::byte{9}}}).bytes, Bytes{std::byte{9}});
  EXPECT_EQ(round_trip(Leave{{{ViewId{1}, {StreamId{2}, 3}, {4, 5}}}}).announced.size(), 1U);
  auto const failed = round_trip(std::get<ViewFailed>(one_of_each()[6])).failure;
  EXPECT_EQ(failed.code, Errc::member_lost);
  EXPECT_EQ(failed.failed_members, (std::vector{MemberId{3}, MemberId{4}}));
  EXPECT_EQ(failed.detail, "gone");
  EXPECT_FALSE(round_trip(LearnerState{seat(5), {}, false}).is_ready);
  EXPECT_EQ(round_trip(Knock{7, "record"}).protocol_version, 7U);
  EXPECT_EQ(round_trip(Seats{MemberId{12}, value()}).value, value());
  EXPECT_EQ(round_trip(Notice{"key", true, {{"name", "value"}}}).fields, (Fields{{"name", "value"}}));
  auto const all = one_of_each();
  ASSERT_EQ(all.size(), std::variant_size_v<Message>);
  for (std::size_t kind = 0; kind < all.size(); ++kind) {
    ASSERT_EQ(all[kind].index(), kind);
    auto const decoded = decode_body(body(encode(all[kind])));
    ASSERT_TRUE(decoded) << kind << ": " << decoded.error().detail;
    EXPECT_EQ(decoded->index(), kind);
    EXPECT_EQ(encode(*decoded), encode(all[kind])) << kind;
  }
}

TEST(Wire, brings_back_what_a_change_of_view_decides) {
  EXPECT_EQ(round_trip(Decided{value()}).value, value());
  EXPECT_EQ(round_trip(Prepare{value(), {5, MemberId{1}}}).current, value());
  EXPECT_EQ(round_trip(Prepare{value(), {5, MemberId{1}}}).ballot, (Ballot{5, MemberId{1}}));
  EXPECT_EQ(round_trip(Propose{ViewId{7}, {5, MemberId{1}}, value()}).value, value());
  auto const promised = round_trip(promise());
  EXPECT_EQ(promised.view, ViewId{7});
  EXPECT_EQ(promised.ballot, (Ballot{3, MemberId{4}}));
  EXPECT_EQ(promised.report, promise().report);
  EXPECT_EQ(promised.accepted_ballot, (Ballot{2, MemberId{1}}));
  EXPECT_EQ(promised.accepted, value());
  auto nothing_accepted = promise();
  nothing_accepted.accepted_ballot = {};
  nothing_accepted.accepted.reset();
  EXPECT_FALSE(round_trip(nothing_accepted).accepted);
  auto const preempted = round_trip(Preempted{ViewId{7}, {3, MemberId{4}}, {5, MemberId{1}}});
  EXPECT_EQ(preempted.ballot, (Ballot{3, MemberId{4}}));
  EXPECT_EQ(preempted.promised, (Ballot{5, MemberId{1}}));
  auto const learner = round_trip(LearnerState{seat(12), {{StreamId{2}, 41, {1, 2}}}});
  EXPECT_EQ(learner.seat, seat(12));
  EXPECT_EQ(learner.positions, (std::vector<StreamPosition>{{StreamId{2}, 41, {1, 2}}}));
  auto const fence = round_trip(FenceRequest{ViewId{8}, {MemberId{1}, MemberId{4}}, MemberId{1}, MemberId{4}});
  EXPECT_EQ(fence.members, (std::vector{MemberId{1}, MemberId{4}}));
  EXPECT_EQ(fence.requester, MemberId{1});
  EXPECT_EQ(fence.suspect, MemberId{4});
  EXPECT_EQ(round_trip(Certificate{MemberId{4}}).member, MemberId{4});
  EXPECT_EQ(round_trip(Reachable{"tcp://10.0.0.1:4711"}).join, "tcp://10.0.0.1:4711");
}

TEST(Wire, refuses_values_that_cannot_be) {
  auto const is_refused = [](Value const& wrong) { return !decode_body(body(encode(Message(Decided{wrong})))); };
  auto empty = value();
  empty.seats.clear();
  empty.verdicts.clear();
  EXPECT_TRUE(is_refused(empty)) << "a view without members";
  auto unordered = value();
  std::swap(unordered.seats[0], unordered.seats[1]);
  EXPECT_TRUE(is_refused(unordered));
  auto twice = value();
  twice.seats[1] = twice.seats[0];
  EXPECT_TRUE(is_refused(twice));
  auto beyond = value();
  beyond.highest_named = MemberId{8};
  EXPECT_TRUE(is_refused(beyond)) << "a member beyond the highest that was named";
  auto stranger = value();
  stranger.verdicts[1].holders = {MemberId{2}};
  EXPECT_TRUE(is_refused(stranger)) << "a holder that is no member";
  auto streams = value();
  streams.verdicts[1].stream = streams.verdicts[0].stream;
  EXPECT_TRUE(is_refused(streams));
  auto ahead = promise();
  ahead.report[0].held = ahead.report[0].committed + 2;
  EXPECT_FALSE(decode_body(body(encode(Message(ahead))))) << "two rounds held";
}

TEST(Wire, refuses_every_truncation) {
  for (auto const& message : one_of_each()) {
    auto const frame = encode(message);
    for (std::size_t bytes = 0; bytes < body(frame).size(); ++bytes)
      EXPECT_FALSE(decode_body(body(frame).first(bytes))) << message.index() << " cut to " << bytes;
  }
}

TEST(Wire, survives_random_changes) {
  std::mt19937 random(1);
  for (auto const& message : one_of_each()) {
    auto const frame = encode(message);
    for (int trial = 0; trial < 2'000; ++trial) {
      auto changed = frame;
      for (int change = 0; change < 3; ++change) changed[random() % changed.size()] = static_cast<std::byte>(random());
      FrameReader reader;
      reader.append(changed);
      (void)reader.next();  // Any answer will do: the sanitizers judge.
    }
  }
}

TEST(Wire, refuses_an_id_for_a_newcomer_that_was_named_before) {
  EXPECT_FALSE(decode_body(body(encode(Seats{MemberId{4}, value()}))));
}

TEST(Wire, refuses_a_declared_count_before_taking_memory) {
  // An array of 2^32 - 1 elements in five bytes.
  Bytes const hostile{std::byte{0xDD}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}};
  EXPECT_FALSE(decode_body(hostile));
}

TEST(FrameReader, cuts_a_stream_wherever_it_is_broken) {
  Bytes stream;
  for (auto const& message : one_of_each()) {
    auto const frame = encode(message);
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  for (std::size_t piece : {std::size_t{1}, std::size_t{7}, stream.size()}) {
    FrameReader reader;
    std::size_t messages = 0;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      reader.append(std::span(stream).subspan(at, std::min(piece, stream.size() - at)));
      while (true) {
        auto const next = reader.next();
        ASSERT_TRUE(next) << next.error().detail;
        if (!*next) break;
        EXPECT_EQ((*next)->index(), messages++);
      }
    }
    EXPECT_EQ(messages, one_of_each().size());
  }
}

TEST(FrameReader, refuses_garbage_and_oversize) {
  FrameReader garbage;
  garbage.append(Bytes(64, std::byte{'G'}));
  EXPECT_FALSE(garbage.next());
  auto frame = encode(Welcome{});
  frame[4] = std::byte{0x7F};
  FrameReader oversize;
  oversize.append(frame);
  auto const next = oversize.next();
  ASSERT_FALSE(next);
  EXPECT_NE(next.error().detail.find("limit"), std::string::npos);
}

TEST(Record, comes_back_and_names_differences) {
  auto const mine = describe_self({}, 0, 2);
  auto const decoded = decode_record(encode(mine));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->locality, mine.locality);
  EXPECT_EQ(decoded->options, mine.options);
  EXPECT_FALSE(decode_record("rubbish"));

  auto other = mine;
  other.rank = 1;
  EXPECT_FALSE(first_difference({mine, other}));
  other.version = "0.0.1";
  auto const difference = first_difference({mine, other});
  ASSERT_TRUE(difference);
  EXPECT_NE(difference->find("0.0.1"), std::string::npos);
  EXPECT_NE(difference->find(mine.version), std::string::npos);
  EXPECT_NE(difference->find("rank 1"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::net
