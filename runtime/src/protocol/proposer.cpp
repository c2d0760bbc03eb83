#include "proposer.hpp"

#include <utility>

namespace holdfast::protocol {

bool Proposer::may_open(action::Instant now, Ballot highest) const {
  if (now < not_before_) return false;
  return phase_ == Phase::idle || now > deadline_ || highest > ballot_;
}

void Proposer::open(Ballot ballot, action::Instant deadline, action::Instant not_before) {
  phase_ = Phase::preparing;
  ballot_ = ballot;
  promises_.clear();
  quorum_since_.reset();
  accepted_.clear();
  deadline_ = deadline;
  not_before_ = not_before;
  ++attempts_;
}

void Proposer::on_promise(MemberId from, Promise promise) {
  if (phase_ == Phase::preparing && promise.ballot == ballot_) promises_[from] = std::move(promise);
}

MemberSet Proposer::promisers() const {
  std::vector<MemberId> members;
  for (auto const& [member, promise] : promises_) members.push_back(member);
  return MemberSet(std::move(members));
}

std::optional<action::Instant> Proposer::quorum_since(Electorate const& electorate, MemberSet const& certified,
                                                      action::Instant now) {
  if (!is_quorum(electorate, promisers(), certified))
    quorum_since_.reset();
  else if (!quorum_since_)
    quorum_since_ = now;
  return quorum_since_;
}

void Proposer::propose(Value value) {
  phase_ = Phase::proposing;
  value_ = std::move(value);
}

void Proposer::on_accepted(MemberId from) {
  accepted_.insert(from);
}

}  // namespace holdfast::protocol
