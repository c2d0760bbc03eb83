#include <gtest/gtest.h>
#include <protocol/value_choice.hpp>

namespace holdfast::protocol {
namespace {

constexpr MemberId a{0}, b{1}, c{2}, d{5};

Seat seat(MemberId id) {
  Seat seat;
  seat.member.id = id;
  return seat;
}

Value current() {
  return first_value({seat(a), seat(b), seat(c)}, QuorumRule::certified, b, 42);
}

Promise empty_promise() {
  return {};
}

Promise accepted(Ballot ballot, Value value) {
  Promise promise;
  promise.accepted_ballot = ballot;
  promise.accepted = std::move(value);
  return promise;
}

TEST(ValueChoice, is_free_when_no_promiser_accepted_anything) {
  EXPECT_FALSE(value_to_adopt({{a, empty_promise()}, {b, empty_promise()}}));
}

TEST(ValueChoice, adopts_the_value_of_the_highest_ballot) {
  auto older = current();
  older.seed = 1;
  auto newer = current();
  newer.seed = 2;
  auto const adopted =
      value_to_adopt({{a, accepted({3, a}, newer)}, {b, accepted({2, c}, older)}, {c, empty_promise()}});
  ASSERT_TRUE(adopted);
  EXPECT_EQ(*adopted, newer);
}

TEST(ValueChoice, adopts_a_value_whole_though_its_members_have_not_all_promised) {
  auto value = current();
  value.verdicts = {{StreamId{7}, 9, {1, 1}, {}, {}}};
  Promise promise = accepted({2, a}, value);
  promise.report = {{StreamId{7}, 3, 3, {2, 2}, {2, 2}}};
  auto const adopted = value_to_adopt({{a, promise}});
  ASSERT_TRUE(adopted);
  EXPECT_EQ(adopted->members(), MemberSet({a, b, c}));
  EXPECT_EQ(adopted->verdicts.at(0).committed, 9U);
}

TEST(ValueChoice, proposes_promisers_and_newcomers_in_ascending_order) {
  Plan plan;
  plan.stayers = {a, c};
  plan.newcomers = {seat(d)};
  auto const value = fresh_value(current(), {{a, empty_promise()}, {c, empty_promise()}}, plan);
  ASSERT_TRUE(value);
  EXPECT_EQ(value->number, ViewId{2});
  EXPECT_EQ(value->members(), MemberSet({a, c, d}));
  EXPECT_EQ(value->seats.back().member.id, d);
  EXPECT_EQ(value->highest_named, d);
}

TEST(ValueChoice, remembers_the_highest_id_after_it_left) {
  Plan plan;
  plan.stayers = {a};
  auto const value = fresh_value(current(), {{a, empty_promise()}}, plan);
  ASSERT_TRUE(value);
  EXPECT_EQ(value->highest_named, c);
}

TEST(ValueChoice, passes_the_quorum_rule_on_and_the_tie_breaker_while_it_stays) {
  Plan plan;
  plan.stayers = {a, b};
  auto const with = fresh_value(current(), {{a, empty_promise()}, {b, empty_promise()}}, plan);
  EXPECT_EQ(with->quorum, QuorumRule::certified);
  EXPECT_EQ(with->tie_breaker, b);
  plan.stayers = {a, c};
  EXPECT_FALSE(fresh_value(current(), {{a, empty_promise()}, {c, empty_promise()}}, plan)->tie_breaker);
}

TEST(ValueChoice, draws_another_seed_for_every_view) {
  Plan plan;
  plan.stayers = {a, b, c};
  auto const second = fresh_value(current(), {{a, empty_promise()}}, plan);
  auto const third = fresh_value(*second, {{a, empty_promise()}}, plan);
  EXPECT_NE(second->seed, current().seed);
  EXPECT_NE(third->seed, second->seed);
  EXPECT_EQ(second->seed, fresh_value(current(), {{a, empty_promise()}}, plan)->seed) << "the same at every proposer";
}

}  // namespace
}  // namespace holdfast::protocol
