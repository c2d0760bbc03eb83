#include <gtest/gtest.h>
#include <protocol/gathers.hpp>
#include <protocol/learner.hpp>

namespace holdfast::protocol {
namespace {

using namespace std::chrono_literals;

constexpr StreamId kStream{7};
constexpr Digest kState{1, 2};
constexpr action::Instant kNow{1h};

StreamVerdict verdict(std::uint64_t committed, StreamId stream = kStream) {
  return {stream, committed, {}, {}, {}};
}

TEST(Admission, needs_the_very_round_of_the_verdict) {
  StateLog own;
  own.note({kStream, 5, kState});
  own.note({kStream, 6, kState});
  EXPECT_TRUE(is_admissible({{kStream, 6, kState}}, {verdict(6)}, own));
  EXPECT_FALSE(is_admissible({{kStream, 5, kState}}, {verdict(6)}, own));
  EXPECT_FALSE(is_admissible({{kStream, 6, kState}}, {verdict(5)}, own)) << "ahead of the group";
}

TEST(Admission, needs_the_very_state) {
  StateLog own;
  own.note({kStream, 6, kState});
  EXPECT_FALSE(is_admissible({{kStream, 6, {1, 3}}}, {verdict(6)}, own));
}

TEST(Admission, needs_a_state_that_this_member_can_compare) {
  EXPECT_FALSE(is_admissible({{kStream, 6, kState}}, {verdict(6)}, StateLog{}));
}

TEST(Admission, needs_every_stream_that_has_rounds) {
  StateLog own;
  own.note({kStream, 6, kState});
  EXPECT_FALSE(is_admissible({{kStream, 6, kState}}, {verdict(6), verdict(1, StreamId{8})}, own));
  EXPECT_TRUE(is_admissible({{kStream, 6, kState}}, {verdict(6), verdict(0, StreamId{8})}, own));
}

TEST(Admission, does_not_ask_for_small_exchanges) {
  EXPECT_TRUE(is_admissible({}, {verdict(3, GatherTable::stream_of(GatherTable::name_of("key", false)))}, StateLog{}));
}

TEST(StateLog, keeps_the_last_rounds_only) {
  StateLog log;
  for (std::uint64_t round = 1; round <= 100; ++round) log.note({kStream, round, {round, 0}});
  EXPECT_TRUE(log.holds({kStream, 100, {100, 0}}));
  EXPECT_TRUE(log.holds({kStream, 98, {98, 0}}));
  EXPECT_FALSE(log.holds({kStream, 1, {1, 0}}));
  EXPECT_EQ(log.round(kStream), 100U);
}

TEST(StateLog, does_not_go_back) {
  StateLog log;
  log.note({kStream, 5, kState});
  log.note({kStream, 4, {9, 9}});
  EXPECT_EQ(log.round(kStream), 5U);
  EXPECT_FALSE(log.holds({kStream, 4, {9, 9}}));
}

TEST(LearnerTable, forgets_who_is_silent) {
  LearnerTable table;
  LearnerState state;
  state.seat.member.id = MemberId{5};
  EXPECT_TRUE(table.note(state, kNow));
  EXPECT_FALSE(table.note(state, kNow + 1s)) << "known";
  EXPECT_TRUE(table.expire(kNow + 2s, 1s).empty());
  EXPECT_EQ(table.expire(kNow + 3s, 1s), std::vector{MemberId{5}});
  EXPECT_TRUE(table.all().empty());
}

TEST(LearnerTable, is_bounded) {
  LearnerTable table;
  for (std::uint64_t id = 0; id < 2 * LearnerTable::kMaxLearners; ++id) {
    LearnerState state;
    state.seat.member.id = MemberId{id};
    (void)table.note(state, kNow);
  }
  EXPECT_EQ(table.all().size(), LearnerTable::kMaxLearners);
}

}  // namespace
}  // namespace holdfast::protocol
