#include "pipeline/round_state.hpp"

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
  RowMask non_finite(view.world_size());
  Reduction reduction;
  reduction.view = view.id;
  reduction.round = round.id;
  for (auto const& agreement : round.agreements) {
    if (agreement->failure()) return fail(*agreement->failure());
    contributors &= agreement->contributors();
    non_finite |= agreement->non_finite();
    for (auto const& collective : agreement->collectives()) reduction.sent_bytes += collective->sent_bytes();
  }
  reduction.contributors = contributors.indices();
  for (int rank = 0; rank < view.world_size(); ++rank)
    if (!contributors.test(rank))
      reduction.excluded.push_back({rank, view.members[static_cast<std::size_t>(rank)].id,
                                    non_finite.test(rank) ? "non-finite elements" : "did not arrive in time"});
  return reduction;
}

}  // namespace holdfast::pipeline
