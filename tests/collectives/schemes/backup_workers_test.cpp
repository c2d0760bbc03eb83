#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/backup_workers.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

TEST(GradientSpread, estimates_gradient_and_noise_from_the_gram) {
  constexpr int kRows = 8;
  constexpr int kElements = 4000;
  std::mt19937_64 random(4);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> rows(kRows, std::vector<double>(kElements, 0.1));
  for (auto& row : rows)
    for (auto& value : row) value += 0.5 * normal(random);
  double trace = 0;
  double total = 0;
  for (auto const& a : rows)
    for (auto const& b : rows)
      for (std::size_t k = 0; k < kElements; ++k) {
        total += a[k] * b[k];
        if (&a == &b) trace += a[k] * b[k];
      }
  auto const spread = GradientSpread::of(trace, total, kRows);
  EXPECT_NEAR(spread.variance / (0.25 * kElements), 1, 0.05);
  EXPECT_NEAR(spread.gradient_squared / (0.01 * kElements), 1, 0.3);
  EXPECT_GT(GradientSpread::of(8, 8, 8).gradient_squared, 0) << "pure noise leaves a little";
}

/// Steps on a quadratic of curvature L, whose loss follows the gain formula exactly.
TEST(BackupWorkers, learns_the_smoothness_and_leaves_stragglers_out_when_that_pays) {
  constexpr double kEta = 0.1;
  constexpr double kSmoothness = 4;
  BackupWorkers workers(6, {kEta, 1, 5, {}});
  EXPECT_EQ(workers.choice(), 6) << "nothing is known yet";
  GradientSpread spread;
  spread.gradient_squared = spread.mean_squared = 1;
  spread.variance = 0.5;
  double loss = 10;
  std::vector<double> const arrivals{1.0, 1.1, 1.2, 1.3, 1.4, 9.0};
  for (int step = 0; step < 8; ++step) {
    workers.observe(6, arrivals, spread, loss);
    double const curvature = kSmoothness * kEta * kEta / 2;
    loss -= (kEta - curvature) * spread.gradient_squared - curvature * spread.variance / 6;
  }
  EXPECT_NEAR(workers.smoothness(), kSmoothness, 1e-9);
  EXPECT_LT(workers.choice(), 6);
  EXPECT_GE(workers.choice(), 3) << "2 f + 1";
  // By the formula itself.
  int best = 6;
  for (int k = 3; k <= 6; ++k)
    if (workers.gain(k) / workers.duration(k) > workers.gain(best) / workers.duration(best)) best = k;
  EXPECT_EQ(workers.choice(), best);
}

TEST(BackupWorkers, waits_for_all_when_no_choice_promises_a_gain) {
  BackupWorkers workers(4, {1.0, 0, 5, {}});
  GradientSpread spread;
  spread.gradient_squared = 1e-6;
  spread.variance = 1;
  std::vector<double> const arrivals{1, 1, 1, 5};
  for (int step = 0; step < 5; ++step) workers.observe(4, arrivals, spread, 1.0 + step);
  EXPECT_EQ(workers.choice(), 4);
}

TEST(BackupWorkers, respects_the_bound_of_the_rule) {
  BackupWorkers workers(6, {0.1, 1, 5, [](int k) { return k >= 5; }});
  GradientSpread spread;
  spread.gradient_squared = 1;
  std::vector<double> const arrivals{0.1, 0.1, 0.1, 0.1, 0.1, 100};
  for (int step = 0; step < 4; ++step) workers.observe(6, arrivals, spread, 10 - step * 0.09);
  EXPECT_EQ(workers.choice(), 5);
}

TEST(BackupWorkers, makes_durations_increase_with_the_number_waited_for) {
  BackupWorkers workers(3, {0.1, 0, 5, {}});
  workers.observe(2, std::vector<double>{1, 4}, {}, 1);
  workers.observe(3, std::vector<double>{1, 2, 2.5}, {}, 1);
  EXPECT_EQ(workers.duration(1), 1);
  EXPECT_NEAR(workers.duration(2), (3 * 2 + 2.5) / 3, 1e-12) << "pooled with the third";
  EXPECT_EQ(workers.duration(3), workers.duration(2));
  EXPECT_THROW(workers.observe(4, std::vector<double>{1, 1, 1}, {}, 1), Error);
}

}  // namespace
}  // namespace holdfast
