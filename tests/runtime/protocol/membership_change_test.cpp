#include <gtest/gtest.h>
#include <malloc.h>
#include <protocol/membership.hpp>

#include "cluster.hpp"

namespace holdfast::protocol {
namespace {

using namespace std::chrono_literals;

constexpr StreamId kStream{7};

std::uint64_t number(ViewId view) {
  return static_cast<std::uint64_t>(view);
}

TEST(ViewChange, goes_on_without_a_member_that_is_silent) {
  Cluster cluster(3);
  cluster.kill(0);
  cluster.run(2s);
  for (std::uint64_t const id : {1, 2}) {
    EXPECT_EQ(cluster.members(id), MemberSet({MemberId{1}, MemberId{2}}));
    EXPECT_EQ(number(cluster.at(id).view().id), 2U);
  }
}

TEST(ViewChange, commits_what_everybody_held_and_redoes_what_somebody_lacked) {
  Cluster cluster(3);
  cluster.commit({kStream, 1}, {0, 1, 2});
  for (std::uint64_t const id : {0, 1, 2}) ASSERT_TRUE(cluster.hold(id, {kStream, 2}, {2, 2}));
  cluster.kill(2);  // Its READY is under way.
  cluster.cut(2, 0);
  cluster.cut(2, 1);
  cluster.run(2s);
  for (std::uint64_t const id : {0, 1}) EXPECT_TRUE(*cluster.at(id).is_committed({kStream, 2})) << "both held it";
  ASSERT_TRUE(cluster.hold(0, {kStream, 3}, {3, 3}));
  EXPECT_EQ(cluster.at(0).value().verdict(kStream).committed, 2U);
}

TEST(ViewChange, holds_nothing_between_the_promise_and_the_next_view) {
  Cluster cluster(3);
  cluster.kill(2);
  cluster.certify(2);
  cluster.cut(0, 1);
  cluster.cut(1, 0);
  ASSERT_TRUE(cluster.at(0).is_frozen());
  auto const held = cluster.hold(0, {kStream, 1});
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, Errc::aborted);
}

TEST(ViewChange, stays_frozen_when_its_ballot_failed_and_the_suspicion_was_withdrawn) {
  Cluster cluster(3);
  cluster.run(200ms);
  for (std::uint64_t const other : {1, 2}) {
    cluster.cut(other, 0);
    cluster.cut(0, other);
  }
  Ballot const ballot{1, MemberId{0}};
  cluster.deliver(0, 1, Prepare{cluster.at(0).value(), ballot});
  ASSERT_TRUE(cluster.at(1).is_frozen());
  EXPECT_FALSE(cluster.hold(1, {kStream, 1}));
  cluster.run(100ms);
  EXPECT_FALSE(cluster.hold(1, {kStream, 1})) << "until the next view";
}

TEST(ViewChange, answers_what_is_old_with_the_decision) {
  Cluster cluster(3);
  auto const old = cluster.at(0).value();
  cluster.kill(2);
  cluster.certify(2);
  cluster.run(1s);
  ASSERT_EQ(number(cluster.at(0).view().id), 2U);
  cluster.resume(2);
  cluster.deliver(2, 0, Prepare{old, {99, MemberId{2}}});
  cluster.deliver_all();
  EXPECT_TRUE(cluster.was_evicted(2)) << "it learns, and no acceptor of the old view votes again";
  EXPECT_EQ(number(cluster.at(0).view().id), 2U);
}

TEST(ViewChange, parks_without_a_quorum_and_goes_on_after_healing_with_the_same_members) {
  Cluster cluster(4);
  cluster.cut_apart({0, 1}, {2, 3});
  cluster.run(3s);
  for (std::uint64_t id = 0; id < 4; ++id) {
    EXPECT_TRUE(cluster.at(id).is_parked());
    EXPECT_EQ(number(cluster.at(id).view().id), 1U);
  }
  cluster.heal();
  cluster.run(5s);
  for (std::uint64_t id = 0; id < 4; ++id) {
    EXPECT_FALSE(cluster.at(id).is_parked());
    EXPECT_EQ(cluster.members(id).members(), 4U);
  }
  cluster.commit({kStream, 1}, {0, 1, 2, 3});
}

TEST(ViewChange, waits_after_healing_for_the_links_that_come_back_last) {
  Cluster cluster(4);
  cluster.cut_apart({0, 1}, {2, 3});
  cluster.run(3s);
  cluster.heal();
  cluster.cut_apart({0, 1}, {3});
  cluster.run(1200ms);
  cluster.heal();
  cluster.run(2s);
  for (std::uint64_t id = 0; id < 4; ++id) EXPECT_EQ(cluster.members(id).members(), 4U);
  cluster.commit({kStream, 1}, {0, 1, 2, 3});
}

TEST(ViewChange, goes_on_after_healing_without_a_member_that_stays_away) {
  Cluster cluster(4);
  cluster.cut_apart({0, 1}, {2, 3});
  cluster.run(3s);
  cluster.heal();
  cluster.cut_apart({0, 1, 2}, {3});
  cluster.run(3s);
  for (std::uint64_t id = 0; id < 3; ++id) EXPECT_EQ(cluster.members(id).members(), 3U);
  cluster.commit({kStream, 1}, {0, 1, 2});
}

TEST(ViewChange, parks_the_other_of_two_when_the_tie_breaker_died) {
  Cluster cluster(2, QuorumRule::majority, MemberId{0});
  cluster.kill(0);
  cluster.certify(0);
  cluster.run(3s);
  EXPECT_TRUE(cluster.at(1).is_parked());
  EXPECT_EQ(number(cluster.at(1).view().id), 1U);
}

TEST(ViewChange, lets_the_tie_breaker_go_on_alone_of_two) {
  Cluster cluster(2, QuorumRule::majority, MemberId{0});
  cluster.kill(1);
  cluster.run(3s);
  EXPECT_EQ(cluster.members(0), MemberSet({MemberId{0}}));
}

TEST(ViewChange, leaves_nobody_out_without_a_certificate_under_the_certified_rule) {
  Cluster cluster(3, QuorumRule::certified);
  cluster.stop(2);
  cluster.run(3s);
  EXPECT_EQ(number(cluster.at(0).view().id), 1U);
  ASSERT_FALSE(cluster.fences(0).empty());
  EXPECT_EQ(cluster.fences(0).front().suspect, MemberId{2});
  EXPECT_TRUE(cluster.fences(1).empty()) << "only who may propose asks";
  cluster.kill(2);
  cluster.certify(2);
  cluster.run(1s);
  EXPECT_EQ(cluster.members(0), MemberSet({MemberId{0}, MemberId{1}}));
}

// --- leaving -----------------------------------------------------------------------------------------------------

TEST(Leave, is_done_when_the_next_view_is_there) {
  Cluster cluster(3);
  cluster.commit({kStream, 1}, {0, 1, 2});
  cluster.leave(1);
  cluster.run(1s);
  EXPECT_TRUE(cluster.has_ended(1));
  EXPECT_FALSE(cluster.was_evicted(1)) << "it wanted to go";
  EXPECT_EQ(cluster.members(0), MemberSet({MemberId{0}, MemberId{2}}));
}

TEST(Leave, of_the_coordinator_is_done_too) {
  Cluster cluster(3);
  cluster.leave(0);
  cluster.run(2s);
  EXPECT_TRUE(cluster.has_ended(0));
  EXPECT_EQ(cluster.members(1), MemberSet({MemberId{1}, MemberId{2}}));
}

TEST(Leave, while_a_view_changes_is_done_with_that_view_or_the_next) {
  Cluster cluster(4);
  cluster.kill(3);
  cluster.certify(3);  // A ballot is open now.
  ASSERT_TRUE(cluster.at(0).is_frozen());
  cluster.leave(2);
  cluster.run(3s);
  EXPECT_TRUE(cluster.has_ended(2));
  EXPECT_FALSE(cluster.was_evicted(2));
  for (std::uint64_t const id : {0, 1}) EXPECT_EQ(cluster.members(id), MemberSet({MemberId{0}, MemberId{1}}));
}

TEST(Leave, of_all_at_once_ends_for_all) {
  Cluster cluster(3);
  for (std::uint64_t id = 0; id < 3; ++id) cluster.leave(id);
  cluster.run(20s);
  for (std::uint64_t id = 0; id < 3; ++id) EXPECT_TRUE(cluster.has_ended(id)) << id;
}

TEST(Leave, of_the_last_member_ends) {
  Cluster cluster(1);
  cluster.leave(0);
  cluster.run(1s);
  EXPECT_TRUE(cluster.has_ended(0));
}

// --- joining -----------------------------------------------------------------------------------------------------

class Join : public testing::Test {
 protected:
  Join() {
    cluster_.commit({kStream, 1}, {0, 1, 2});
    cluster_.commit({kStream, 2}, {0, 1, 2}, {2, 2});
  }
  void announce(std::uint64_t id, std::uint64_t round, Digest state) {
    cluster_.at(id).note_state({kStream, round, state}, cluster_.now);
    cluster_.run(50ms);
  }
  Cluster cluster_{3};
};

TEST_F(Join, happens_with_the_state_of_the_group) {
  cluster_.join(7, {1});
  announce(7, 2, {2, 2});
  cluster_.run(2s);
  ASSERT_FALSE(cluster_.at(7).is_learner());
  EXPECT_EQ(cluster_.members(0).members(), 4U);
  EXPECT_EQ(cluster_.at(7).value(), cluster_.at(0).value());
  cluster_.commit({kStream, 3}, {0, 1, 2, 7}, {3, 3});
}

TEST_F(Join, does_not_happen_with_another_state) {
  cluster_.join(7, {1});
  announce(7, 2, {9, 9});
  cluster_.run(5s);
  EXPECT_TRUE(cluster_.at(7).is_learner());
  EXPECT_EQ(cluster_.members(0).members(), 3U);
}

TEST_F(Join, does_not_happen_far_behind) {
  cluster_.join(7, {1});
  cluster_.run(5s);
  EXPECT_TRUE(cluster_.at(7).is_learner());
  EXPECT_EQ(number(cluster_.at(0).view().id), 1U) << "nobody is interrupted for it";
}

TEST_F(Join, ignores_a_decision_for_another_round) {
  cluster_.join(7, {1});
  announce(7, 1, {1, 1});
  auto value = cluster_.at(0).value();
  value.number = ViewId{2};
  value.seats.push_back({{MemberId{7}, "host", 107, "here"}, ""});
  value.highest_named = MemberId{7};
  value.verdicts = {{kStream, 2, {2, 2}, {}, {}}};
  cluster_.deliver(0, 7, Decided{value});
  EXPECT_NE(number(cluster_.at(7).view().id), 2U);
  ASSERT_TRUE(cluster_.at(7).failure()) << "its id was named, and is spent";
  EXPECT_EQ(cluster_.at(7).failure()->code, Errc::evicted);
}

TEST_F(Join, needs_an_id_above_every_id_named_before) {
  cluster_.join(7, {1});
  announce(7, 2, {2, 2});
  cluster_.run(2s);
  ASSERT_FALSE(cluster_.at(7).is_learner());
  cluster_.join(5, {1});
  cluster_.run(1s);
  EXPECT_TRUE(cluster_.was_evicted(5));
}

TEST_F(Join, of_one_that_vanishes_costs_one_change_at_most) {
  cluster_.join(7, {1});
  announce(7, 2, {2, 2});
  cluster_.kill(7);
  cluster_.run(10s);
  EXPECT_EQ(cluster_.members(0).members(), 3U);
  cluster_.commit({kStream, 3}, {0, 1, 2}, {3, 3});
}

// --- growth ------------------------------------------------------------------------------------------------------

TEST(ViewChange, leaves_nothing_behind_over_1000_views) {
  Cluster cluster(3);
  std::uint64_t newest = 2;
  std::size_t early_bytes = 0;
  while (number(cluster.at(0).view().id) < 1'000) {
    auto const view = number(cluster.at(0).view().id);
    // Exchanges that one view begins and does not end, one that it ends, and a name that is used once.
    std::vector<std::byte> const part(64);
    for (std::uint64_t const id : {std::uint64_t{0}, std::uint64_t{1}, newest})
      ASSERT_TRUE(cluster.at(id).contribute("connect in view " + std::to_string(view), part, true));
    ASSERT_TRUE(cluster.at(0).contribute("open in view " + std::to_string(view), part, true));
    cluster.run(50ms);
    ASSERT_TRUE(cluster.at(0).take_exchange("connect in view " + std::to_string(view), true)->has_value());
    auto const leaver = newest++;
    cluster.join(newest, {0});
    cluster.leave(leaver);
    for (int waited = 0; waited < 100 && cluster.members(0).contains(MemberId{leaver}); ++waited) cluster.run(50ms);
    for (int waited = 0; waited < 100 && cluster.at(newest).is_learner(); ++waited) cluster.run(50ms);
    ASSERT_FALSE(cluster.at(newest).is_learner()) << "view " << view;
    cluster.forget(leaver);
    EXPECT_TRUE(cluster.at(0).value().verdicts.empty()) << "exchanges of one view have no verdict";
    if (view < 300) early_bytes = ::mallinfo2().uordblks;
  }
  auto const late_bytes = ::mallinfo2().uordblks;  // 0 under sanitizers
  EXPECT_LT(late_bytes, early_bytes + early_bytes / 4 + 65'536);
}

}  // namespace
}  // namespace holdfast::protocol
