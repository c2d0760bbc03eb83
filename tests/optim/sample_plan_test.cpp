#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/optim/sample_plan.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

std::vector<MemberId> ids(std::vector<std::uint64_t> const& numbers) {
  std::vector<MemberId> members;
  for (auto const number : numbers) members.push_back(MemberId{number});
  return members;
}

SamplePlan::Options each(std::size_t rows, bool shuffle = false) {
  return {7, shuffle, rows, 0};
}

using Rows = std::vector<std::size_t>;

TEST(SamplePlan, gives_each_member_a_run_in_rank_order) {
  SamplePlan plan(20, ids({0, 1, 2}), each(3));
  EXPECT_EQ(plan.rows_of(MemberId{0}), (Rows{0, 1, 2}));
  EXPECT_EQ(plan.rows_of(MemberId{2}), (Rows{6, 7, 8}));
  plan.committed(ids({0, 1, 2}), ids({0, 1, 2}));
  EXPECT_EQ(plan.rows_of(MemberId{1}), (Rows{12, 13, 14}));
}

TEST(SamplePlan, gives_the_open_rows_of_a_dead_member_out_again_first) {
  SamplePlan plan(30, ids({0, 1, 2}), each(3));
  plan.committed(ids({0, 2}), ids({0, 2}));
  EXPECT_EQ(plan.rows_of(MemberId{0}), (Rows{3, 4, 5}));
  EXPECT_EQ(plan.rows_of(MemberId{2}), (Rows{9, 10, 11}));
  EXPECT_EQ(plan.rows_left(), 24U);
}

TEST(SamplePlan, gives_rows_of_a_late_member_out_again_and_keeps_the_member) {
  SamplePlan plan(30, ids({0, 1}), each(2));
  plan.committed(ids({0}), ids({0, 1}));
  EXPECT_EQ(plan.rows_of(MemberId{0}), (Rows{2, 3}));
  EXPECT_EQ(plan.rows_of(MemberId{1}), (Rows{4, 5}));
}

TEST(SamplePlan, divides_the_last_rows_as_evenly_as_it_goes) {
  SamplePlan plan(5, ids({0, 1, 2}), each(4));
  EXPECT_EQ(plan.rows_of(MemberId{0}), (Rows{0, 1}));
  EXPECT_EQ(plan.rows_of(MemberId{1}), (Rows{2, 3}));
  EXPECT_EQ(plan.rows_of(MemberId{2}), (Rows{4}));
  SamplePlan last(2, ids({0, 1, 2}), each(4));
  EXPECT_EQ(last.rows_of(MemberId{2}), Rows{});
  last.committed(ids({0, 1}), ids({0, 1, 2}));
  EXPECT_TRUE(last.is_epoch_over());
}

TEST(SamplePlan, keeps_the_rows_of_a_step_when_members_come_and_go) {
  SamplePlan plan(1000, ids({0, 1, 2, 3}), {1, true, 0, 26});
  EXPECT_EQ(plan.rows_of(MemberId{0}).size(), 7U);
  EXPECT_EQ(plan.rows_of(MemberId{3}).size(), 6U);
  plan.committed(ids({0, 1, 2, 3}), ids({0, 3}));
  EXPECT_EQ(plan.rows_of(MemberId{3}).size(), 13U);
}

TEST(SamplePlan, gives_a_newcomer_rows_that_nobody_else_has) {
  SamplePlan plan(100, ids({0, 2}), each(5));
  EXPECT_EQ(plan.rows_of(MemberId{3}), (Rows{10, 11, 12, 13, 14}));
  EXPECT_EQ(plan.rows_of(MemberId{4}), (Rows{15, 16, 17, 18, 19}));
  EXPECT_EQ(plan.rows_of(MemberId{1}), Rows{});
  plan.committed(ids({0, 2, 4}), ids({0, 2, 4}));  // 3 died meanwhile
  EXPECT_EQ(plan.rows_of(MemberId{0}), (Rows{10, 11, 12, 13, 14}));
  EXPECT_EQ(plan.rows_of(MemberId{2}), (Rows{20, 21, 22, 23, 24}));
}

TEST(SamplePlan, refuses_what_it_did_not_save_and_stays_as_it_is) {
  SamplePlan plan(50, ids({0, 1}), each(4));
  plan.committed(ids({1}), ids({0, 1}));
  auto const good = plan.save();
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(plan.load(std::span(good).first(length))) << length;
  for (std::size_t at = 0; at < good.size(); ++at) {
    auto bad = good;
    bad[at] ^= std::byte{0xff};
    SamplePlan other(50, ids({0, 1}), each(4));
    auto const before = other.save();
    if (!other.load(bad)) {
      EXPECT_EQ(other.save(), before) << at;
    }
  }
  SamplePlan other(51, ids({0, 1}), each(4));
  EXPECT_EQ(other.load(good).error().code, Errc::mismatch);
  EXPECT_EQ(plan.save(), good);
}

TEST(SamplePlan, needs_members_and_one_size) {
  EXPECT_THROW(SamplePlan(5, {}, each(1)), Error);
  EXPECT_THROW(SamplePlan(5, ids({0}), {0, true, 0, 0}), Error);
  EXPECT_THROW(SamplePlan(5, ids({0}), {0, true, 1, 1}), Error);
  SamplePlan none(0, ids({0}), each(1));
  EXPECT_TRUE(none.is_epoch_over());
}

/// One member's program: its plan, and the rows it has in hand.
struct Trainer {
  MemberId id{};
  SamplePlan plan;
  Rows in_hand;
};

/// Kills, late members, joins and steps that fail by their rule, in any order: whoever trains what, over an epoch each
/// row is in exactly one committed step, and all members agree on what comes next.
TEST(SamplePlan, hands_out_each_row_exactly_once_over_an_epoch_with_failures) {
  auto const first_seed = std::random_device{}();
  for (unsigned run = 0; run < 300; ++run) {
    auto const seed = first_seed + run;
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    auto const below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
    std::size_t const rows = below(400);
    SamplePlan::Options const options = below(2) == 0 ? SamplePlan::Options{seed, below(2) == 0, 1 + below(9), 0}
                                                      : SamplePlan::Options{seed, below(2) == 0, 0, 1 + below(40)};
    std::vector<MemberId> start;
    std::uint64_t next_id = below(3);
    for (std::size_t member = 0; member < 1 + below(5); ++member) start.push_back(MemberId{next_id++});
    std::vector<Trainer> trainers;
    for (auto const id : start) trainers.push_back({id, SamplePlan(rows, start, options), {}});

    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::map<std::size_t, int> times;
      int steps = 0;
      for (auto& trainer : trainers)
        if (epoch > 0) trainer.plan.begin_epoch(epoch);
      while (!trainers.front().plan.is_epoch_over()) {
        ASSERT_LT(++steps, 100'000);
        for (auto& trainer : trainers) trainer.in_hand = trainer.plan.rows_of(trainer.id);
        if (below(10) == 0) continue;  // failed by its rule: nothing is committed
        // While the step is under way members die, and newcomers come in with the state before it.
        while (trainers.size() > 1 && below(6) == 0)
          trainers.erase(trainers.begin() + static_cast<std::ptrdiff_t>(below(trainers.size())));
        while (trainers.size() < 7 && below(6) == 0) {
          if (below(4) == 0) ++next_id;  // one that never got in
          Trainer joined{MemberId{next_id++}, SamplePlan(rows, ids({99'999}), options), {}};
          ASSERT_TRUE(joined.plan.load(trainers[below(trainers.size())].plan.save()));
          joined.in_hand = joined.plan.rows_of(joined.id);
          trainers.push_back(std::move(joined));
        }
        std::vector<MemberId> used;
        std::vector<MemberId> members;
        for (auto const& trainer : trainers) {
          members.push_back(trainer.id);
          bool const is_late = below(8) == 0;
          if (is_late || trainer.in_hand.empty()) continue;
          used.push_back(trainer.id);
          for (auto const row : trainer.in_hand) ++times[row];
        }
        for (auto& trainer : trainers) trainer.plan.committed(used, members);
        for (auto const& trainer : trainers) ASSERT_EQ(trainer.plan.save(), trainers.front().plan.save());
      }
      ASSERT_EQ(times.size(), rows);
      for (auto const& [row, count] : times) {
        ASSERT_LT(row, rows);
        ASSERT_EQ(count, 1) << "row " << row << " in epoch " << epoch;
      }
    }
  }
}

}  // namespace
}  // namespace holdfast
