#include "hostile_peer.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/runtime/log.hpp>

namespace holdfast::fabrics::testing {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr std::size_t kBytes = 3 * kStripeBytes;  // so each half has a whole stripe and half a one

class HostilePeerTest : public ::testing::Test {
 protected:
  void SetUp() override { set_log_level("off"); }
  void TearDown() override { set_log_level("warning"); }
};

Bytes const kAnnouncement(sizeof(Announcement));

struct Case {
  char const* name;
  std::size_t connection;
  Bytes bytes;
  char const* evidence;
};

Bytes row(std::uint64_t offset, std::size_t bytes, std::uint64_t sequence = 0) {
  return frame(header(FrameKind::row, sequence, offset), Bytes(bytes, std::byte{9}));
}
Bytes result(std::uint64_t offset, std::size_t bytes, std::uint8_t generation) {
  return frame(header(FrameKind::result, 0, offset, generation), Bytes(bytes, std::byte{9}));
}
Bytes operator+(Bytes first, Bytes const& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

TEST_F(HostilePeerTest, that_behaves_is_served) {
  HostilePeer peer;
  OpenExchange open(peer, kBytes);
  std::memset(open.contribution, 1, kBytes);
  peer.send(0, frame(header(FrameKind::announcement), kAnnouncement));
  ASSERT_TRUE(peer.drive([&] { return open.exchange->announced(1); }));
  open.start();
  std::size_t const half = kBytes / 2;
  peer.send(1, row(0, 1000));
  ASSERT_TRUE(peer.drive([&] { return open.exchange->row_arrived(1, 1000); }));
  EXPECT_FALSE(open.exchange->row_arrived(1, 1001));
  peer.send(1, row(1000, kStripeBytes - 1000));
  peer.send(1, row(kStripeBytes, half - kStripeBytes));
  ASSERT_TRUE(peer.drive([&] { return open.exchange->row_arrived(1, half); }));
  EXPECT_EQ(open.exchange->row(1)[half - 1], std::byte{9});
  peer.send(1, result(0, kStripeBytes, 1));
  auto last = header(FrameKind::result, 0, kStripeBytes, 1);
  last.extra = 77;
  peer.send(1, frame(last, Bytes(half - kStripeBytes, std::byte{9})));
  ASSERT_TRUE(peer.drive([&] { return open.exchange->result_arrived(1, 1); }));
  EXPECT_EQ(open.exchange->result_hash(1), 77U);
  EXPECT_EQ(open.result[kBytes - 1], std::byte{9});
  EXPECT_EQ(peer.fabric->trouble(), "");
}

TEST_F(HostilePeerTest, is_cut_off_and_suspected_for_whatever_does_not_fit_and_writes_nowhere_else) {
  std::size_t const half = kBytes / 2;
  auto const announcement = frame(header(FrameKind::announcement), kAnnouncement);
  auto other_view = header(FrameKind::row);
  other_view.view = ViewId{4};
  auto other_stream = header(FrameKind::small);
  other_stream.stream = 8;
  Case const cases[] = {
      {"rubbish", 1, Bytes(200, std::byte{'x'}), "no frame"},
      {"rubbish among small frames", 0, Bytes(200, std::byte{'x'}), "no frame"},
      {"a frame of another view", 1, frame(other_view, Bytes(1)), "view 4 in view 5"},
      {"a stream that cannot be", 0, frame(other_stream), "impossible"},
      {"a row of an exchange not announced here", 1, row(0, 1, 1), "not announced"},
      {"a row that leaves a gap", 1, row(1, 10), "not its next"},
      {"a row twice", 1, row(0, 10) + row(0, 10), "not its next"},
      {"a row beyond its end", 1, row(0, kStripeBytes) + row(kStripeBytes, half - kStripeBytes + 1), "not its next"},
      {"a row far beyond its end", 1, row(std::uint64_t{1} << 63, 10), "not its next"},
      {"a row across a stripe's end", 1, row(0, 1000) + row(1000, kStripeBytes), "not its next"},
      {"a result twice", 1, result(0, 10, 1) + result(0, 10, 1), "not its next"},
      {"a second result before the first", 1, result(0, 10, 2), "before the first"},
      {"a second result over half a first", 1, result(0, 10, 1) + result(0, 10, 2), "before the first"},
      {"a second announcement", 0, announcement, "second announcement"},
      {"an announcement far ahead", 0, frame(header(FrameKind::announcement, 1'000'000), kAnnouncement), "far ahead"},
      {"a small message twice", 0, frame(header(FrameKind::small)) + frame(header(FrameKind::small)), "second small"},
      {"a second greeting", 0, frame(header(FrameKind::hello)), "greeting"},
  };
  for (auto const& hostile : cases) {
    SCOPED_TRACE(hostile.name);
    HostilePeer peer;
    OpenExchange open(peer, kBytes);
    auto* const behind = peer.fabric->arena(ArenaUse::result)->allocate(kBytes);
    peer.send(0, announcement);
    ASSERT_TRUE(peer.drive([&] { return open.exchange->announced(1); }));
    open.start();
    peer.send(hostile.connection, hostile.bytes);
    ASSERT_TRUE(peer.drive([&] { return !peer.fabric->trouble().empty(); }));
    ASSERT_EQ(peer.suspicions.size(), 1U);
    EXPECT_EQ(peer.suspicions[0].first, 1);
    EXPECT_THAT(peer.suspicions[0].second, HasSubstr(hostile.evidence));
    for (std::size_t index = 0; index < kBytes / 2; ++index) ASSERT_EQ(open.result[index], std::byte{0});
    for (std::size_t index = 0; index < kBytes; ++index) ASSERT_EQ(behind[index], std::byte{0});
    // That connection is closed; what the fabric had sent before may still be read.
    std::error_code error;
    Bytes buffer(1 << 16);
    while (!error) peer.connections[hostile.connection].read_some(asio::buffer(buffer), error);
    EXPECT_TRUE(error);
    EXPECT_FALSE(peer.fabric->is_busy() && hostile.connection == 1);
  }
}

TEST_F(HostilePeerTest, late_frames_of_an_exchange_that_is_over_are_dropped) {
  HostilePeer peer;
  {
    OpenExchange open(peer, kBytes);
    peer.send(0, frame(header(FrameKind::announcement), kAnnouncement));
    ASSERT_TRUE(peer.drive([&] { return open.exchange->announced(1); }));
    open.start();
    peer.send(1, row(0, 1000));
    ASSERT_TRUE(peer.drive([&] { return open.exchange->row_arrived(1, 1000); }));
  }
  peer.send(1, row(1000, 50'000));
  peer.send(1, row(77, 50'000));
  OpenExchange next(peer, kBytes, 1);
  peer.send(0, frame(header(FrameKind::announcement, 1), kAnnouncement));
  ASSERT_TRUE(peer.drive([&] { return next.exchange->announced(1); }));
  next.start();
  peer.send(1, row(0, 10, 1));
  ASSERT_TRUE(peer.drive([&] { return next.exchange->row_arrived(1, 10); }));
  EXPECT_EQ(peer.fabric->trouble(), "");
}

TEST_F(HostilePeerTest, data_waits_for_an_exchange_that_has_not_started) {
  HostilePeer peer;
  OpenExchange open(peer, kBytes);
  peer.send(1, row(0, 1000));
  peer.drive([] { return false; }, 20ms);
  peer.send(0, frame(header(FrameKind::announcement), kAnnouncement));
  ASSERT_TRUE(peer.drive([&] { return open.exchange->announced(1); }));
  open.start();
  ASSERT_TRUE(peer.drive([&] { return open.exchange->row_arrived(1, 1000); }));
}

TEST_F(HostilePeerTest, that_hangs_up_while_it_is_needed_is_suspected_after_a_grace) {
  HostilePeer peer;
  OpenExchange const open(peer, kBytes);
  peer.connections[1].close();
  auto const began = std::chrono::steady_clock::now();
  ASSERT_TRUE(peer.drive([&] { return !peer.suspicions.empty(); }, 5s));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 400ms);
}

TEST_F(HostilePeerTest, that_hangs_up_when_nothing_is_open_is_let_go) {
  HostilePeer peer;
  for (auto& connection : peer.connections) connection.close();
  peer.drive([] { return false; }, 700ms);
  EXPECT_TRUE(peer.suspicions.empty());
}

TEST_F(HostilePeerTest, may_send_anything_without_touching_memory_that_is_not_its_own) {
  unsigned const seed = 90'125;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  auto const below = [&](std::size_t bound) { return static_cast<std::size_t>(random()) % bound; };
  for (int round = 0; round < 150; ++round) {
    HostilePeer peer(2);
    OpenExchange open(peer, kBytes);
    auto const small = peer.fabric->open_small({0, 0});
    auto* const behind = peer.fabric->arena(ArenaUse::result)->allocate(kBytes);
    peer.send(0, frame(header(FrameKind::announcement), kAnnouncement));
    ASSERT_TRUE(peer.drive([&] { return open.exchange->announced(1); }));
    open.start();
    std::vector<Bytes> pieces = {row(0, 3000),
                                 row(3000, 2000),
                                 row(kStripeBytes, 500),
                                 result(0, 5000, 1),
                                 result(5000, 100, 1),
                                 frame(header(FrameKind::small), Bytes(40)),
                                 frame(header(FrameKind::ready, 3), Bytes(16)),
                                 frame(header(FrameKind::announcement, 1), kAnnouncement)};
    std::shuffle(pieces.begin(), pieces.end(), random);
    for (auto& piece : pieces) {
      if (below(3) == 0) piece.resize(below(piece.size()));
      for (std::size_t flips = below(4); flips > 0 && !piece.empty(); --flips)
        piece[below(std::min<std::size_t>(piece.size(), 60))] = static_cast<std::byte>(random());
      peer.send(below(3), piece);
      peer.fabric->progress();
    }
    peer.drive([] { return false; }, 3ms);
    for (std::size_t index = 0; index < kBytes / 2; ++index) ASSERT_EQ(open.result[index], std::byte{0}) << round;
    for (std::size_t index = 0; index < kBytes; ++index) ASSERT_EQ(behind[index], std::byte{0}) << round;
  }
}

}  // namespace
}  // namespace holdfast::fabrics::testing
