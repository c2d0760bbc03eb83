#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace holdfast {

/// Binary FedVote (Yue, Jin, Wong, Dai, 2022): members send one bit per weight, drawn with the probability that their
/// latent weight h gives, and vote on each weight; those who often vote against the majority lose their say.
struct FedVoteOptions {
  double sharpness = 1.5;  ///< k in tanh(k h)
  double memory = 0.5;     ///< beta: how much of the credibility is from earlier rounds
};

/// What a member believes of the others; equal at all members. It is state: save it with the parameters.
struct FedVoteState {
  std::vector<double> credibility;  ///< one per member, 1 at the start
  explicit FedVoteState(std::size_t members = 0) : credibility(members, 1.0) {}
};

/// The chance of a +1 vote for a latent weight.
[[nodiscard]] double vote_probability(double latent, FedVoteOptions const& options = {});

/// +1 or -1 for each weight, with random numbers named by the key: the same key, the same votes.
[[nodiscard]] std::vector<signed char> cast_votes(std::span<float const> latent, std::uint64_t seed,
                                                  std::uint64_t round, FedVoteOptions const& options = {});

/// 32 votes a word, +1 as a set bit: an element per 32 weights travels.
[[nodiscard]] std::vector<std::int32_t> pack_votes(std::span<signed char const> votes);
[[nodiscard]] std::vector<signed char> unpack_votes(std::span<std::int32_t const> words, std::size_t weights);

struct FedVoteRound {
  std::vector<double> plurality;  ///< +1 where the votes are above 0, else -1
  std::vector<double> weights;    ///< of the members, sum 1; 0 for a credibility below the mean
  std::vector<double> latent;     ///< the new weights, equal at all members
};

/// Counts the votes of all members and updates their credibility.
/// @param votes  one row of +1 and -1 per member
/// @throws Error bad_argument if rows differ in length or are not as many as the members of the state
[[nodiscard]] FedVoteRound count_votes(std::span<std::vector<signed char> const> votes, FedVoteState& state,
                                       FedVoteOptions const& options = {});

}  // namespace holdfast
