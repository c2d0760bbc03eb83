#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/diloco/schedule.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast::diloco {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string complaint(auto const& function) {
  try {
    function();
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::bad_argument);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Schedule, first_exchange_of_a_fragment_comes_after_a_whole_period) {
  Schedule const schedule(100, 2, Spacing::paper);  // the paper's example
  std::vector<std::int64_t> starts;
  for (std::int64_t step = 1; step <= 260; ++step)
    if (schedule.starts(1, step)) starts.push_back(step);
  EXPECT_THAT(starts, ElementsAre(150, 250));
}

TEST(Schedule, gaps_round_halves_down_and_the_real_period_is_told) {
  EXPECT_EQ(Schedule(100, 8, Spacing::paper).gap(), 12);
  EXPECT_EQ(Schedule(100, 16, Spacing::paper).gap(), 6);
  EXPECT_EQ(Schedule(100, 36, Spacing::paper).gap(), 3);
  EXPECT_EQ(Schedule(10, 4, Spacing::paper).period(), 8);
  EXPECT_THAT(Schedule(10, 4, Spacing::paper).warning(), HasSubstr("every 8 steps, not every 10"));
  EXPECT_EQ(Schedule(10, 4, Spacing::exact).warning(), "");
  EXPECT_EQ(Schedule(1, 5, Spacing::paper).gap(), 1);
}

TEST(Schedule, joiner_contributes_after_a_whole_period_of_own_steps) {
  Schedule const schedule(20, 4, Spacing::paper);
  EXPECT_TRUE(schedule.starts(1, 45));
  EXPECT_TRUE(schedule.starts(1, 45, 25));
  EXPECT_FALSE(schedule.starts(1, 45, 26));
  EXPECT_TRUE(schedule.starts(1, 65, 26));
}

TEST(Schedule, several_fragments_may_be_on_their_way) {
  EXPECT_EQ(Schedule(30, 5, Spacing::paper).max_in_flight(15, 400), 3);
  EXPECT_EQ(Schedule(30, 5, Spacing::paper).max_in_flight(0, 400), 1);
}

TEST(Schedule, overlap_of_a_whole_period_is_refused_with_the_bound) {
  Schedule const schedule(10, 4, Spacing::paper);
  schedule.require_overlap(7);
  EXPECT_EQ(complaint([&] { schedule.require_overlap(8); }),
            "overlap: 8 must be from 0 to 7: a fragment is applied before it is exchanged again, 8 steps later (10 "
            "inner steps, 4 fragments, spacing paper)");
  EXPECT_THAT(complaint([&] { schedule.require_overlap(-1); }), HasSubstr("overlap: -1 must be from 0 to 7"));
}

TEST(Schedule, impossible_numbers_and_words_are_refused) {
  EXPECT_THAT(complaint([] { Schedule(0, 4, Spacing::paper); }), HasSubstr("inner steps: 0 must be from 1"));
  EXPECT_THAT(complaint([] { Schedule(10, 0, Spacing::paper); }), HasSubstr("fragments: 0 must be at least 1"));
  EXPECT_EQ(complaint([] { (void)parse_spacing("even"); }), "spacing: 'even' is not valid; valid: paper, exact");
}

}  // namespace
}  // namespace holdfast::diloco
