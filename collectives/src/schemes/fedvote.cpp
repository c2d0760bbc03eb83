#include <algorithm>
#include <cmath>
#include <string>

#include <holdfast/collectives/counter_random.hpp>
#include <holdfast/collectives/schemes/fedvote.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

constexpr std::uint64_t kPurpose = 0x766F7465;
/// Keeps a unanimous weight finite.
constexpr double kMostCertain = 1 - 1e-4;

}  // namespace

double vote_probability(double latent, FedVoteOptions const& options) {
  return (std::tanh(options.sharpness * latent) + 1) / 2;
}

std::vector<signed char> cast_votes(std::span<float const> latent, std::uint64_t seed, std::uint64_t round,
                                    FedVoteOptions const& options) {
  CounterRandom const random(seed, kPurpose, round);
  std::vector<signed char> votes;
  votes.reserve(latent.size());
  for (std::size_t i = 0; i < latent.size(); ++i)
    votes.push_back(random.uniform(i) < vote_probability(static_cast<double>(latent[i]), options) ? 1 : -1);
  return votes;
}

std::vector<std::int32_t> pack_votes(std::span<signed char const> votes) {
  std::vector<std::uint32_t> words((votes.size() + 31) / 32, 0);
  for (std::size_t i = 0; i < votes.size(); ++i)
    if (votes[i] > 0) words[i / 32] |= 1U << (i % 32);
  return {words.begin(), words.end()};
}

std::vector<signed char> unpack_votes(std::span<std::int32_t const> words, std::size_t weights) {
  std::vector<signed char> votes;
  for (std::size_t i = 0; i < weights; ++i)
    votes.push_back(((static_cast<std::uint32_t>(words[i / 32]) >> (i % 32)) & 1U) != 0 ? 1 : -1);
  return votes;
}

FedVoteRound count_votes(std::span<std::vector<signed char> const> votes, FedVoteState& state,
                         FedVoteOptions const& options) {
  std::size_t const members = state.credibility.size();
  if (votes.size() != members || members == 0)
    throw Error(Errc::bad_argument,
                std::to_string(votes.size()) + " rows of votes for " + std::to_string(members) + " members");
  std::size_t const weights = votes.front().size();
  for (auto const& row : votes)
    if (row.size() != weights) throw Error(Errc::bad_argument, "members vote on different numbers of weights");

  FedVoteRound round;
  for (std::size_t j = 0; j < weights; ++j) {
    int sum = 0;
    for (auto const& row : votes) sum += row[j];
    round.plurality.push_back(sum > 0 ? 1 : -1);
  }
  double mean = 0;
  for (std::size_t i = 0; i < members; ++i) {
    std::size_t agreed = 0;
    for (std::size_t j = 0; j < weights; ++j) agreed += votes[i][j] == round.plurality[j] ? 1 : 0;
    double const share = weights == 0 ? 1 : static_cast<double>(agreed) / static_cast<double>(weights);
    state.credibility[i] = options.memory * state.credibility[i] + (1 - options.memory) * share;
    mean += state.credibility[i];
  }
  mean /= static_cast<double>(members);
  // Equal credibilities must not fall below their own mean by rounding.
  constexpr double kRounding = 1 - 1e-12;
  double total = 0;
  for (double const credibility : state.credibility) {
    round.weights.push_back(credibility < mean * kRounding ? 0 : credibility);
    total += round.weights.back();
  }
  for (auto& weight : round.weights) weight /= total;
  for (std::size_t j = 0; j < weights; ++j) {
    double average = 0;
    for (std::size_t i = 0; i < members; ++i) average += round.weights[i] * votes[i][j];
    average = std::clamp(average, -kMostCertain, kMostCertain);
    round.latent.push_back(0.5 / options.sharpness * std::log((1 + average) / (1 - average)));
  }
  return round;
}

}  // namespace holdfast
