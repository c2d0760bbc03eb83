#include "job_policy.hpp"

#include <gtest/gtest.h>

namespace holdfast::launch::test {
namespace {

using namespace std::chrono_literals;
using Step = JobPolicy::Step;

class Policy : public ::testing::Test {
 protected:
  static JobPolicy started(int ranks, JobPolicy::Options options, bool are_members = true) {
    JobPolicy policy(ranks, options);
    for (int rank = 0; rank < ranks; ++rank) {
      policy.on_started(rank, kStart);
      if (are_members) policy.on_member(rank);
    }
    return policy;
  }
  static inline JobPolicy::Clock::time_point const kStart{};
};

TEST_F(Policy, members_go_on_without_a_killed_one_and_the_job_ends_well) {
  auto policy = started(3, {});
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart).step, Step::go_on);
  EXPECT_EQ(policy.on_ended(2, kEvictedStatus, false, kStart).step, Step::go_on);
  (void)policy.on_ended(0, 0, false, kStart);
  EXPECT_EQ(policy.status(), 0);
  EXPECT_EQ(policy.lost(), 2);
}

TEST_F(Policy, a_killed_process_that_was_no_member_ends_the_others) {
  auto policy = started(2, {}, false);
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart).step, Step::end);
  (void)policy.on_ended(0, 0, false, kStart);
  EXPECT_EQ(policy.status(), 137);
}

TEST_F(Policy, an_error_of_a_member_shows_in_the_status_though_the_others_go_on) {
  auto policy = started(3, {});
  EXPECT_EQ(policy.on_ended(1, 3, false, kStart).step, Step::go_on);
  (void)policy.on_ended(0, 0, false, kStart);
  (void)policy.on_ended(2, 0, false, kStart);
  EXPECT_EQ(policy.status(), 3);
}

TEST_F(Policy, a_job_of_which_nothing_is_left_has_the_status_of_the_first_loss) {
  auto policy = started(2, {});
  (void)policy.on_ended(1, 137, true, kStart);
  (void)policy.on_ended(0, 139, true, kStart);
  EXPECT_EQ(policy.status(), 137);
}

TEST_F(Policy, restarts_wait_twice_as_long_each_time_up_to_a_limit) {
  auto policy = started(2, {.max_restarts = 3, .backoff = 1s, .longest_backoff = 3s});
  for (auto const pause : {1s, 2s, 3s}) {
    auto const decision = policy.on_ended(1, 1, false, kStart);
    EXPECT_EQ(decision.step, Step::restart);
    EXPECT_EQ(decision.restart_at, kStart + pause);
    policy.on_started(1, kStart);
  }
  EXPECT_EQ(policy.on_ended(1, 1, false, kStart).step, Step::go_on);
  (void)policy.on_ended(0, 0, false, kStart);
  EXPECT_EQ(policy.status(), 0);
}

TEST_F(Policy, a_rank_that_ran_long_has_its_restarts_back) {
  auto policy = started(2, {.max_restarts = 1, .forgives_after = 60s});
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart).step, Step::restart);
  policy.on_started(1, kStart);
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart + 60s).step, Step::restart);
  policy.on_started(1, kStart);
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart + 59s).step, Step::go_on);
}

TEST_F(Policy, below_the_least_number_the_job_ends_and_may_ask_for_requeue) {
  auto policy = started(3, {.min = 2});
  EXPECT_EQ(policy.on_ended(0, 137, true, kStart).step, Step::go_on);
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart).step, Step::stop);
  policy.on_ending();
  (void)policy.on_ended(2, kRequeueStatus, false, kStart);
  EXPECT_EQ(policy.status(), kRequeueStatus);
}

TEST_F(Policy, nobody_is_started_again_once_a_rank_has_ended_well) {
  auto policy = started(3, {.max_restarts = 3});
  (void)policy.on_ended(0, 0, false, kStart);
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart).step, Step::go_on);
  (void)policy.on_ended(2, 0, false, kStart);
  EXPECT_EQ(policy.status(), 0);
}

TEST_F(Policy, with_on_loss_end_each_loss_is_a_failure) {
  auto policy = started(2, {.survives = false});
  EXPECT_EQ(policy.on_ended(1, 137, true, kStart).step, Step::end);
  (void)policy.on_ended(0, 1, false, kStart);
  EXPECT_EQ(policy.status(), 137);
}

TEST_F(Policy, what_ends_by_our_own_signals_is_no_loss) {
  auto policy = started(2, {});
  policy.on_ending();
  (void)policy.on_ended(0, 143, true, kStart);
  (void)policy.on_ended(1, kRequeueStatus, false, kStart);
  EXPECT_EQ(policy.status(), 143);
}

}  // namespace
}  // namespace holdfast::launch::test
