#include "round_ledger.hpp"

#include <algorithm>

namespace holdfast::protocol {

RoundLedger::RoundLedger(int world_size) : world_size_(world_size) {}

RoundLedger::Counted RoundLedger::count(RoundId round, int rank, Digest digest) {
  auto& stream = streams_[round.stream];
  if (round.number == 0 || round.number > stream.committed + 2) return Counted::out_of_order;
  auto& tally = stream.tallies[round.number % 2];
  if (round.number <= stream.committed) {
    bool const is_kept = tally.number == round.number;
    return is_kept && !(tally.digest == digest) ? Counted::diverged : Counted::repeated;
  }
  if (tally.number != round.number) {
    tally.number = round.number;
    tally.ready_count = 0;
    tally.first_rank = rank;
    tally.digest = digest;
    tally.has_ready.assign(static_cast<std::size_t>(world_size_), 0);
  }
  if (!(tally.digest == digest)) return Counted::diverged;
  auto& has_ready = tally.has_ready[static_cast<std::size_t>(rank)];
  if (has_ready != 0) return Counted::repeated;
  has_ready = 1;
  if (++tally.ready_count < world_size_ || round.number != stream.committed + 1) return Counted::counted;
  // The tally of the round after this one cannot be full: our own READY for it follows this commit.
  stream.committed = round.number;
  ++rounds_committed_;
  return Counted::committed;
}

std::uint64_t RoundLedger::committed(StreamId stream) const {
  auto const found = streams_.find(stream);
  return found == streams_.end() ? 0 : found->second.committed;
}

RoundLedger::Tally const* RoundLedger::find(RoundId round) const {
  auto const found = streams_.find(round.stream);
  if (found == streams_.end()) return nullptr;
  auto const& tally = found->second.tallies[round.number % 2];
  return tally.number == round.number ? &tally : nullptr;
}

bool RoundLedger::has_ready(RoundId round, int rank) const {
  if (is_committed(round)) return true;
  auto const at = static_cast<std::size_t>(rank);
  auto const* const tally = find(round);
  auto const* const next = find({round.stream, round.number + 1});
  return (tally != nullptr && tally->has_ready[at] != 0) || (next != nullptr && next->has_ready[at] != 0);
}

RoundLedger::Announcement RoundLedger::first_of(RoundId round) const {
  auto const* const tally = find(round);
  return tally == nullptr ? Announcement{round, 0, {}} : Announcement{round, tally->first_rank, tally->digest};
}

std::vector<RoundLedger::Announcement> RoundLedger::announced_by(int rank) const {
  std::vector<Announcement> announced;
  for (auto const& [id, stream] : streams_)
    for (auto const& tally : stream.tallies)
      if (tally.number != 0 && tally.has_ready[static_cast<std::size_t>(rank)] != 0)
        announced.push_back({{id, tally.number}, rank, tally.digest});
  std::sort(announced.begin(), announced.end(), [](auto const& a, auto const& b) { return a.round < b.round; });
  return announced;
}

}  // namespace holdfast::protocol
