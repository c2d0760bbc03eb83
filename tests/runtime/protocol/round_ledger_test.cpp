#include <gtest/gtest.h>
#include <protocol/round_ledger.hpp>

namespace holdfast::protocol {
namespace {

using Counted = RoundLedger::Counted;

constexpr StreamId kStream{7};
constexpr Digest kDigest{1, 2};

RoundId round_of(std::uint64_t number) {
  return {kStream, number};
}

TEST(RoundLedger, commits_when_the_last_ready_is_counted) {
  RoundLedger ledger(3);
  EXPECT_EQ(ledger.count(round_of(1), 2, kDigest), Counted::counted);
  EXPECT_EQ(ledger.count(round_of(1), 0, kDigest), Counted::counted);
  EXPECT_FALSE(ledger.is_committed(round_of(1)));
  EXPECT_EQ(ledger.count(round_of(1), 1, kDigest), Counted::committed);
  EXPECT_TRUE(ledger.is_committed(round_of(1)));
  EXPECT_EQ(ledger.rounds_committed(), 1U);
}

TEST(RoundLedger, counts_a_repeated_ready_once) {
  RoundLedger ledger(2);
  EXPECT_EQ(ledger.count(round_of(1), 1, kDigest), Counted::counted);
  EXPECT_EQ(ledger.count(round_of(1), 1, kDigest), Counted::repeated);
  EXPECT_FALSE(ledger.is_committed(round_of(1)));
  EXPECT_EQ(ledger.count(round_of(1), 0, kDigest), Counted::committed);
  EXPECT_EQ(ledger.count(round_of(1), 1, kDigest), Counted::repeated);
}

TEST(RoundLedger, refuses_another_digest_before_and_after_commit) {
  RoundLedger ledger(2);
  EXPECT_EQ(ledger.count(round_of(1), 1, kDigest), Counted::counted);
  EXPECT_EQ(ledger.count(round_of(1), 0, {1, 3}), Counted::diverged);
  EXPECT_FALSE(ledger.is_committed(round_of(1)));
  EXPECT_EQ(ledger.count(round_of(1), 0, kDigest), Counted::committed);
  EXPECT_EQ(ledger.count(round_of(1), 1, {1, 3}), Counted::diverged);
}

TEST(RoundLedger, keeps_ready_for_the_round_after_the_open_one) {
  RoundLedger ledger(3);
  ASSERT_EQ(ledger.count(round_of(1), 0, kDigest), Counted::counted);
  ASSERT_EQ(ledger.count(round_of(1), 1, kDigest), Counted::counted);
  // Rank 2 committed round 1 already: its READY for it is still on the way on another connection.
  EXPECT_EQ(ledger.count(round_of(2), 1, kDigest), Counted::counted);
  EXPECT_EQ(ledger.count(round_of(1), 2, kDigest), Counted::committed);
  EXPECT_TRUE(ledger.has_ready(round_of(2), 1));
  EXPECT_EQ(ledger.count(round_of(2), 0, kDigest), Counted::counted);
  EXPECT_EQ(ledger.count(round_of(2), 2, kDigest), Counted::committed);
}

TEST(RoundLedger, refuses_rounds_that_cannot_have_been_reached) {
  RoundLedger ledger(2);
  EXPECT_EQ(ledger.count(round_of(0), 1, kDigest), Counted::out_of_order);
  EXPECT_EQ(ledger.count(round_of(3), 1, kDigest), Counted::out_of_order);
}

TEST(RoundLedger, keeps_streams_apart) {
  RoundLedger ledger(1);
  EXPECT_EQ(ledger.count({StreamId{1}, 1}, 0, kDigest), Counted::committed);
  EXPECT_FALSE(ledger.is_committed({StreamId{2}, 1}));
  EXPECT_EQ(ledger.committed(StreamId{1}), 1U);
  EXPECT_EQ(ledger.committed(StreamId{3}), 0U);
}

TEST(RoundLedger, remembers_what_a_rank_announced) {
  RoundLedger ledger(2);
  (void)ledger.count(round_of(1), 0, kDigest);
  (void)ledger.count(round_of(1), 1, kDigest);
  (void)ledger.count(round_of(2), 0, {5, 5});
  auto const announced = ledger.announced_by(0);
  ASSERT_EQ(announced.size(), 2U);
  EXPECT_EQ(announced[0].round, round_of(1));
  EXPECT_EQ(announced[1].digest, (Digest{5, 5}));
}

}  // namespace
}  // namespace holdfast::protocol
