#include <algorithm>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/shard_shares.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

std::vector<double> shares_of(std::vector<double> const& bandwidths) {
  return shard_shares(std::vector<std::optional<double>>(bandwidths.begin(), bandwidths.end()));
}

TEST(ShardShares, no_other_shares_are_done_sooner) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(0.01, 10);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<double> bandwidths(static_cast<std::size_t>(3 + trial % 6));
    for (auto& b : bandwidths) b = uniform(random);
    auto const shares = shares_of(bandwidths);
    EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 1, 1e-12);
    double const time = shard_time(bandwidths, shares);
    for (int other = 0; other < 200; ++other) {
      std::vector<double> weights;
      for (double const share : shares) weights.push_back(share * uniform(random) + 1e-3 * uniform(random));
      double const sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (auto& weight : weights) weight /= sum;
      EXPECT_GE(shard_time(bandwidths, weights), time * (1 - 1e-9));
    }
  }
}

TEST(ShardShares, take_unknown_bandwidths_for_average_and_give_nothing_to_who_has_none) {
  auto const shares = shard_shares(std::vector<std::optional<double>>{2.0, std::nullopt, 2.0, 0.0});
  EXPECT_EQ(shares[3], 0);
  EXPECT_GT(shares[0], shares[1]) << "the mean of the known ones, 4 / 3, is less than 2";
  EXPECT_THROW((void)shares_of({0, 0}), Error);
  EXPECT_THROW((void)shares_of({1, -1}), Error);
  EXPECT_EQ(shares_of({3, 1}), (std::vector<double>{0.5, 0.5}));
}

TEST(ShardParts, add_up_and_prefer_the_lower_rank) {
  EXPECT_EQ(shard_parts(10, std::vector<double>{1.0 / 3, 1.0 / 3, 1.0 / 3}), (std::vector<std::uint64_t>{4, 3, 3}));
  EXPECT_EQ(shard_parts(0, std::vector<double>{0.5, 0.5}), (std::vector<std::uint64_t>{0, 0}));
  EXPECT_EQ(shard_parts(2, std::vector<double>{0, 1}), (std::vector<std::uint64_t>{0, 2}));
}

}  // namespace
}  // namespace holdfast
