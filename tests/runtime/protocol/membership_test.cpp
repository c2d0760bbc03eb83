#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <protocol/membership.hpp>

#include <holdfast/runtime/error.hpp>

#include "simulation.hpp"

namespace holdfast::protocol {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr StreamId kStream{7};
constexpr RoundId kFirst{kStream, 1};

TEST(Membership, commits_when_all_are_ready) {
  Simulation sim(3);
  for (int rank = 0; rank < 3; ++rank) ASSERT_TRUE(sim.hold(rank, kFirst));
  EXPECT_FALSE(*sim.member(0).is_committed(kFirst));
  sim.deliver_all();
  for (int rank = 0; rank < 3; ++rank) EXPECT_TRUE(*sim.member(rank).is_committed(kFirst));
}

TEST(Membership, counts_ready_for_its_own_view_only) {
  Simulation sim(2);
  ASSERT_TRUE(sim.hold(0, kFirst));
  sim.member(0).on_message(MemberId{1}, Ready{ViewId{2}, kFirst, {1, 1}}, sim.now);
  EXPECT_FALSE(*sim.member(0).is_committed(kFirst));
  sim.member(0).on_message(MemberId{1}, Ready{ViewId{1}, kFirst, {1, 1}}, sim.now);
  EXPECT_TRUE(*sim.member(0).is_committed(kFirst));
}

TEST(Membership, sends_ready_for_the_next_round_only_after_commit) {
  Simulation sim(2);
  ASSERT_TRUE(sim.hold(0, kFirst));
  EXPECT_THROW((void)sim.hold(0, {kStream, 2}), Error);
  ASSERT_TRUE(sim.hold(1, kFirst));
  sim.deliver_all();
  EXPECT_TRUE(sim.hold(0, {kStream, 2}));
}

TEST(Membership, counts_a_duplicate_ready_once) {
  Simulation sim(3);
  ASSERT_TRUE(sim.hold(0, kFirst));
  sim.member(0).on_message(MemberId{1}, Ready{ViewId{1}, kFirst, {1, 1}}, sim.now);
  sim.member(0).on_message(MemberId{1}, Ready{ViewId{1}, kFirst, {1, 1}}, sim.now);
  EXPECT_FALSE(*sim.member(0).is_committed(kFirst));
}

TEST(Membership, ends_as_diverged_everywhere_when_digests_differ) {
  Simulation sim(3);
  (void)sim.hold(0, kFirst, {1, 1});
  (void)sim.hold(1, kFirst, {2, 2});
  (void)sim.hold(2, kFirst, {1, 1});
  sim.deliver_all();
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(sim.member(rank).failure());
    EXPECT_EQ(sim.member(rank).failure()->code, Errc::diverged);
  }
}

TEST(Membership, names_a_killed_member_alike_everywhere) {
  Simulation sim(4);
  sim.kill(2);
  sim.deliver_all();
  for (int const rank : {0, 1, 3}) {
    ASSERT_TRUE(sim.member(rank).failure());
    EXPECT_EQ(sim.member(rank).failure()->code, Errc::member_lost);
    EXPECT_EQ(sim.member(rank).failure()->failed_members, std::vector{MemberId{2}});
    EXPECT_EQ(sim.member(rank).failure()->detail, sim.member(0).failure()->detail);
  }
}

TEST(Membership, announces_nothing_once_the_view_has_failed) {
  Simulation sim(3);
  sim.kill(2);
  sim.deliver_all();
  bool is_published = false;
  auto const held = sim.member(0).hold(kFirst, {}, [&] { is_published = true; });
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, Errc::member_lost);
  EXPECT_FALSE(is_published);
  EXPECT_FALSE(sim.member(0).has_actions());
  EXPECT_FALSE(sim.member(0).contribute("key", {}));
}

TEST(Membership, suspects_a_stopped_member_after_the_timeout_and_evicts_it) {
  Simulation sim(3);
  sim.run(1s);
  sim.member(1).report_progress(Activity::computing, {}, sim.now);
  sim.run(100ms);
  sim.stop(1);
  sim.run(1900ms);
  EXPECT_FALSE(sim.member(0).failure());
  sim.run(300ms);
  for (int const rank : {0, 2}) {
    ASSERT_TRUE(sim.member(rank).failure());
    EXPECT_EQ(sim.member(rank).failure()->failed_members, std::vector{MemberId{1}});
    EXPECT_THAT(sim.member(rank).failure()->message(), HasSubstr("computing"));
    EXPECT_THAT(sim.member(rank).failure()->message(), HasSubstr("HOLDFAST_HEARTBEAT_TIMEOUT_MS"));
  }
  sim.resume(1);
  sim.advance(0ms);
  EXPECT_FALSE(sim.member(1).failure()) << "a member that wakes up suspects nobody";
  sim.deliver_all();
  ASSERT_TRUE(sim.member(1).failure());
  EXPECT_EQ(sim.member(1).failure()->code, Errc::evicted);
}

TEST(Membership, forgives_a_stop_shorter_than_the_timeout) {
  Simulation sim(3);
  sim.stop(1);
  sim.run(1500ms);
  sim.resume(1);
  sim.run(10s);
  for (int rank = 0; rank < 3; ++rank) EXPECT_FALSE(sim.member(rank).failure());
}

TEST(Membership, keeps_the_first_failure) {
  Simulation sim(4);
  sim.kill(2);
  while (!sim.member(0).failure()) sim.deliver(2, 0);
  auto const first = sim.member(0).failure()->message();
  sim.kill(3);
  sim.deliver_all();
  EXPECT_EQ(sim.member(0).failure()->message(), first);
}

TEST(Membership, takes_leave_for_no_failure_and_counts_what_was_announced_in_memory) {
  Simulation sim(3);
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(sim.member(rank).hold(kFirst, {1, 1}, [] {}));
    sim.collect(rank);
  }
  sim.member(2).leave(sim.now);
  sim.collect(2);
  sim.kill(2);
  sim.deliver_all();
  EXPECT_FALSE(sim.member(0).failure());
  EXPECT_FALSE(*sim.member(0).is_committed(kFirst));
  sim.member(0).count_ready(ViewId{1}, kFirst, MemberId{1}, {1, 1});
  EXPECT_TRUE(*sim.member(0).is_committed(kFirst));
  auto const next = sim.member(0).hold({kStream, 2}, {}, {});
  ASSERT_FALSE(next);
  EXPECT_EQ(next.error().code, Errc::member_left);
  EXPECT_EQ(next.error().failed_members, std::vector{MemberId{2}});
}

TEST(Membership, ends_the_view_on_a_ready_that_cannot_be) {
  Simulation sim(2);
  sim.member(0).on_message(MemberId{1}, Ready{ViewId{1}, {kStream, 9}, {}}, sim.now);
  ASSERT_TRUE(sim.member(0).failure());
  EXPECT_EQ(sim.member(0).failure()->code, Errc::corrupt_message);
}

TEST(Membership, gives_different_streams_different_ids_or_refuses) {
  Simulation sim(1);
  EXPECT_EQ(sim.member(0).open_stream("a"), sim.member(0).open_stream("a"));
  EXPECT_NE(sim.member(0).open_stream("a"), sim.member(0).open_stream("b"));
}

/// Random interleavings of everything that can happen, with at most one kill.
class MembershipSchedule : public ::testing::TestWithParam<unsigned> {};

TEST_P(MembershipSchedule, keeps_members_together_and_ends_alike) {
  unsigned const seed = GetParam();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  auto const pick = [&](int bound) { return std::uniform_int_distribution<int>(0, bound - 1)(random); };
  int const members = 2 + pick(4);
  bool const will_kill = pick(2) == 1;
  int const kill_step = will_kill ? pick(1500) : -1;
  int const victim = pick(members);
  Simulation sim(members);
  std::vector<std::uint64_t> held(static_cast<std::size_t>(members), 0);
  auto const committed = [&](int rank, std::uint64_t number) {
    auto const outcome = sim.member(rank).is_committed({kStream, number});
    return outcome && *outcome;
  };
  for (int step = 0; step < 1500; ++step) {
    if (step == kill_step) sim.kill(victim);
    int const rank = pick(members);
    auto& own = held[static_cast<std::size_t>(rank)];
    if (auto const links = sim.deliverable(); !links.empty() && pick(4) != 0) {
      auto const [from, to] = links[static_cast<std::size_t>(pick(static_cast<int>(links.size())))];
      sim.deliver(from, to);
    } else if (sim.is_running(rank) && !sim.member(rank).failure() && (own == 0 || committed(rank, own))) {
      ASSERT_TRUE(sim.hold(rank, {kStream, own + 1}, {own, own}));
      ++own;
    } else if (pick(20) == 0) {
      sim.advance(std::chrono::milliseconds(pick(20)));
    }
    for (int a = 0; a < members; ++a)
      for (int b = 0; b < members; ++b)
        ASSERT_FALSE(held[static_cast<std::size_t>(a)] > 0 && committed(a, held[static_cast<std::size_t>(a)]) &&
                     held[static_cast<std::size_t>(b)] < held[static_cast<std::size_t>(a)])
            << "rank " << a << " committed a round that rank " << b << " does not hold";
  }
  sim.deliver_all();
  for (int rank = 0; rank < members; ++rank) {
    if (will_kill && rank == victim) continue;
    ASSERT_EQ(sim.member(rank).failure().has_value(), will_kill);
    if (!will_kill) {
      EXPECT_GT(held[static_cast<std::size_t>(rank)], 1U);
      continue;
    }
    EXPECT_EQ(sim.member(rank).failure()->code, Errc::member_lost);
    EXPECT_EQ(sim.member(rank).failure()->failed_members, std::vector{MemberId{static_cast<std::uint64_t>(victim)}});
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MembershipSchedule, ::testing::Range(1U, 201U));

TEST(MembershipOfOne, ends_an_exchange_that_was_complete_but_not_committed_when_the_last_other_member_died) {
  std::vector<Seat> seats(2);
  seats[1].member.id = MemberId{1};
  MembershipOptions options;
  options.heartbeat_period = 50ms;
  options.heartbeat_timeout = 500ms;
  options.on_loss = OnLoss::shrink;
  Membership membership(first_value(seats, QuorumRule::majority, {}, 1), MemberId{0}, options);
  Instant now{};
  membership.start(now);
  std::vector<std::byte> const bytes(3);
  ASSERT_TRUE(membership.contribute("turn", bytes));
  membership.on_message(MemberId{1}, Contribution{ViewId{1}, "turn", 1, bytes, false}, now);
  membership.on_connection_lost(MemberId{1}, Evidence::process_ended, "killed", now);
  for (int turn = 0; turn < 100; ++turn) membership.on_timer(now += 50ms);
  ASSERT_EQ(membership.view().world_size(), 1);
  auto const parts = membership.take_exchange("turn");
  ASSERT_TRUE(parts);
  ASSERT_TRUE(*parts) << "nobody is left to complete it";
  EXPECT_EQ((*parts)->size(), 1U);
}

}  // namespace
}  // namespace holdfast::protocol
