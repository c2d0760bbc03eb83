#include <random>

#include <gtest/gtest.h>
#include <net/wire.hpp>

namespace holdfast::net {
namespace {

using namespace protocol;

std::span<std::byte const> body(Bytes const& frame) {
  return std::span(frame).subspan(kHeaderBytes);
}

template <typename Type>
Type round_trip(Type const& message) {
  auto const decoded = decode_body(body(encode(Message(message))));
  EXPECT_TRUE(decoded) << decoded.error().detail;
  return std::get<Type>(*decoded);
}

std::vector<Message> one_of_each() {
  Failure failure;
  failure.code = Errc::member_lost;
  failure.failed_members = {MemberId{3}, MemberId{4}};
  failure.detail = "gone";
  return {Hello{1, "job", 0xFFFF'FFFF'FFFF'FFFF, 2, 1},
          Welcome{},
          Refused{"no"},
          Heartbeat{{Activity::in_round, {StreamId{5}, 6}, std::chrono::milliseconds(7)}},
          Ready{ViewId{1}, {StreamId{2}, 3}, {4, 5}},
          Contribution{ViewId{1}, "key", 2, {std::byte{1}, std::byte{2}}},
          ViewFailed{failure},
          Leave{{{ViewId{1}, {StreamId{2}, 3}, {4, 5}}}}};
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
  for (auto const& message : one_of_each()) {
    auto const decoded = decode_body(body(encode(message)));
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->index(), message.index());
  }
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
