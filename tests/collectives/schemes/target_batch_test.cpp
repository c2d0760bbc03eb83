#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/target_batch.hpp>

namespace holdfast {
namespace {

TEST(TargetBatch, estimates_when_the_members_together_have_enough) {
  std::vector<MemberProgress> const members{{5, 100, 10, 2}, {5, 50, 5, 0}, {4, 999, 99, 0}};
  EXPECT_EQ(estimated_samples(members, 5), 100 + 20 + 50) << "who is behind does not count";
  EXPECT_EQ(seconds_to_target(members, 5, 200), 2);
  EXPECT_EQ(seconds_to_target(members, 5, 100), 0);
  EXPECT_TRUE(std::isinf(seconds_to_target(members, 9, 1)));
}

TEST(TargetBatch, looks_again_within_bounds) {
  EXPECT_EQ(next_look_seconds(0.1, 4), 0.5);
  EXPECT_EQ(next_look_seconds(1000, 4), 30);
  EXPECT_NEAR(next_look_seconds(7, 4), 4, 1e-12) << "7 * 4 / (4 + 3)";
  EXPECT_NEAR(next_look_seconds(12, 100), 10, 1e-12) << "12 * 100 / 120";
}

TEST(TargetBatch, weighs_members_by_their_samples) {
  EXPECT_EQ(batch_weight(25, 100, 4), 1);
  EXPECT_EQ(batch_weight(50, 100, 4), 2);
  std::vector<MemberProgress> const members{{5, 0, 0, 0}, {7, 0, 0, 0}};
  EXPECT_TRUE(is_too_late(5, members));
  EXPECT_FALSE(is_too_late(6, members));
}

TEST(SampleRate, moves_slowly_towards_new_speeds) {
  SampleRate rate;
  rate.add(100, 1);
  EXPECT_EQ(rate.per_second(), 100);
  rate.add(200, 1);
  EXPECT_NEAR(rate.per_second(), 110, 1e-12);
  rate.add(5, 0);
  EXPECT_NEAR(rate.per_second(), 110, 1e-12);
}

}  // namespace
}  // namespace holdfast
