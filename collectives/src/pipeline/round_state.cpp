#include "pipeline/round_state.hpp"

#include <algorithm>

#include <xxhash.h>

namespace holdfast::pipeline {

Digest digest_of(RoundState const& round, int world_size) {
  std::vector<std::uint64_t> words;
  for (auto const& agreement : round.agreements) {
    if (agreement->failure()) {
      words.push_back(~static_cast<std::uint64_t>(agreement->failure()->code));
      continue;
    }
    auto const contributors = agreement->contributors().words();
    words.insert(words.end(), contributors.begin(), contributors.end());
    for (auto const& collective : agreement->collectives())
      for (int owner = 0; owner < world_size; ++owner) words.push_back(collective->result_hash(owner));
  }
  auto const hash = XXH3_128bits(words.data(), words.size() * sizeof(std::uint64_t));
  return {hash.high64, hash.low64};
}

Outcome<Reduction> outcome_of(RoundState const& round, View const& view) {
  RowMask contributors = RowMask::all(view.world_size());
  RowMask abstained(view.world_size());
  RowMask non_finite(view.world_size());
  Reduction reduction;
  reduction.view = view.id;
  reduction.round = round.id;
  for (auto const& member : view.members) reduction.members.push_back(member.id);
  int decisions = 0;
  std::optional<RowMask> unused;
  std::string rule;
  for (auto const& agreement : round.agreements) {
    if (agreement->failure()) return fail(*agreement->failure());
    if (agreement->has_rule()) {
      unused = unused ? *unused & agreement->unused() : agreement->unused();
      if (rule.empty()) rule = agreement->rule_text();
      if (agreement->spread() && decisions++ == 0) {
        reduction.spread = agreement->spread();
      } else if (agreement->spread()) {
        reduction.spread.reset();
      }
      reduction.used_fallback |= agreement->used_fallback();
    }
    contributors &= agreement->contributors();
    abstained |= agreement->abstained();
    non_finite |= agreement->non_finite();
    for (auto const& collective : agreement->collectives()) reduction.sent_bytes += collective->sent_bytes();
  }
  reduction.contributors = contributors.indices();
  auto const weighed = std::find_if(round.agreements.begin(), round.agreements.end(),
                                    [](auto const& agreement) { return agreement->has_rule(); });
  for (int const rank : reduction.contributors) {
    auto const at = static_cast<std::size_t>(rank);
    reduction.contributing_members.push_back(view.members[at].id);
    if (weighed == round.agreements.end()) continue;
    auto const& weights = (*weighed)->collectives().front()->announced_weights();
    if (at < weights.size()) reduction.weight += weights[at];
  }
  for (int rank = 0; rank < view.world_size(); ++rank) {
    auto const member = view.members[static_cast<std::size_t>(rank)].id;
    using Cause = Exclusion::Cause;
    if (non_finite.test(rank)) {
      reduction.excluded.push_back({rank, member, "non-finite elements", Cause::non_finite});
    } else if (abstained.test(rank)) {
      reduction.excluded.push_back({rank, member, "abstained", Cause::abstained});
    } else if (!contributors.test(rank)) {
      reduction.excluded.push_back({rank, member, "did not arrive in time", Cause::missing});
    } else if (unused && unused->test(rank)) {
      reduction.excluded.push_back({rank, member, "given no weight by " + rule, Cause::no_weight});
    }
  }
  return reduction;
}

}  // namespace holdfast::pipeline
