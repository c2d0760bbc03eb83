#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/fedvote.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

TEST(FedVote, draws_votes_with_the_probability_of_the_latent_weight) {
  std::vector<float> const latent(20'000, 0.4F);
  auto const votes = cast_votes(latent, 3, 1);
  auto const ups = std::count(votes.begin(), votes.end(), 1);
  EXPECT_NEAR(static_cast<double>(ups) / 20'000, (std::tanh(1.5 * 0.4) + 1) / 2, 0.01);
  EXPECT_EQ(cast_votes(latent, 3, 1), votes);
  EXPECT_NE(cast_votes(latent, 3, 2), votes);
}

TEST(FedVote, sends_a_bit_per_weight) {
  std::vector<signed char> votes;
  for (int i = 0; i < 77; ++i) votes.push_back(i % 3 == 0 ? 1 : -1);
  auto const words = pack_votes(votes);
  EXPECT_EQ(words.size(), 3U);
  EXPECT_EQ(unpack_votes(words, votes.size()), votes);
  EXPECT_TRUE(pack_votes({}).empty());
}

TEST(FedVote, takes_the_say_from_who_votes_against_the_others) {
  FedVoteState state(4);
  std::vector<std::vector<signed char>> votes(4, std::vector<signed char>(100, 1));
  votes[3].assign(100, -1);
  auto const round = count_votes(votes, state);
  EXPECT_EQ(round.weights[3], 0);
  EXPECT_NEAR(round.weights[0], 1.0 / 3, 1e-12);
  EXPECT_EQ(state.credibility[3], 0.5);
  EXPECT_GT(round.latent[0], 0);
}

TEST(FedVote, weighs_equal_members_equally) {
  FedVoteState state(3);
  std::vector<std::vector<signed char>> const votes(3, std::vector<signed char>(7, -1));
  auto const round = count_votes(votes, state);
  for (double const weight : round.weights) EXPECT_NEAR(weight, 1.0 / 3, 1e-12);
  EXPECT_NEAR(round.latent[0], 0.5 / 1.5 * std::log(1e-4 / 1.9999), 1e-9);
}

TEST(FedVote, refuses_rows_that_do_not_fit) {
  FedVoteState state(3);
  EXPECT_THROW((void)count_votes(std::vector<std::vector<signed char>>(2), state), Error);
  EXPECT_THROW((void)count_votes(std::vector<std::vector<signed char>>{{1}, {1, 1}, {1}}, state), Error);
}

}  // namespace
}  // namespace holdfast
