#include "learner.hpp"

#include <algorithm>

namespace holdfast::protocol {

void StateLog::note(StreamPosition const& position) {
  auto& kept = positions_[position.stream];
  if (!kept.empty() && position.round < kept.back().round) return;
  if (!kept.empty() && position.round == kept.back().round) {
    // Another stream's round has changed the state, or its digest was not known yet.
    kept.back() = position;
    return;
  }
  if (kept.size() == kKept) kept.erase(kept.begin());
  kept.push_back(position);
}

bool StateLog::holds(StreamPosition const& position) const {
  auto const found = positions_.find(position.stream);
  return found != positions_.end() &&
         std::find(found->second.begin(), found->second.end(), position) != found->second.end();
}

std::vector<StreamPosition> StateLog::newest() const {
  std::vector<StreamPosition> newest;
  for (auto const& [stream, kept] : positions_) newest.push_back(kept.back());
  return newest;
}

std::uint64_t StateLog::round(StreamId stream) const {
  auto const found = positions_.find(stream);
  return found == positions_.end() ? 0 : found->second.back().round;
}

bool is_admissible(std::vector<StreamPosition> const& announced, std::vector<StreamVerdict> const& verdicts,
                   StateLog const& own) {
  return std::all_of(verdicts.begin(), verdicts.end(), [&](StreamVerdict const& verdict) {
    if (is_exchange(verdict.stream)) return true;
    auto const found = std::find_if(announced.begin(), announced.end(),
                                    [&](StreamPosition const& p) { return p.stream == verdict.stream; });
    if (found == announced.end()) return verdict.committed == 0;
    if (found->round != verdict.committed) return false;
    return own.holds(*found);
  });
}

bool LearnerTable::note(LearnerState const& state, action::Instant now) {
  auto const id = state.seat.member.id;
  if (learners_.size() >= kMaxLearners && !learners_.contains(id)) return false;
  auto const [at, is_new] = learners_.insert_or_assign(id, Learner{state, now});
  return is_new;
}

std::vector<MemberId> LearnerTable::expire(action::Instant now, std::chrono::nanoseconds limit) {
  std::vector<MemberId> gone;
  for (auto const& [id, learner] : learners_)
    if (now - learner.heard > limit) gone.push_back(id);
  for (auto const id : gone) learners_.erase(id);
  return gone;
}

}  // namespace holdfast::protocol
