#include "suspicion.hpp"

#include <algorithm>
#include <utility>

#include "../text.hpp"

namespace holdfast::protocol {

SuspicionTable::SuspicionTable(MemberId self, std::chrono::nanoseconds period, std::chrono::nanoseconds timeout)
    : self_(self), detector_(period, timeout) {}

void SuspicionTable::begin_view(ViewId view, Electorate electorate) {
  for (auto const member : electorate_.members)
    if (!electorate.members.contains(member)) detector_.unwatch(member);
  view_ = view;
  electorate_ = std::move(electorate);
  std::map<MemberId, Peer> peers;
  MemberSet certified;
  for (auto const member : electorate_.members) {
    if (member == self_) continue;
    detector_.watch(member);
    auto& peer = peers[member];
    auto const before = peers_.find(member);
    if (before != peers_.end()) {
      peer.broken = std::move(before->second.broken);
      peer.ended = std::move(before->second.ended);
    }
    if (certified_.contains(member)) certified.insert(member);
  }
  peers_ = std::move(peers);
  certified_ = std::move(certified);
  suspects_.clear();
  is_blocked_ = false;
}

void SuspicionTable::tick(action::Instant now) {
  detector_.tick(now);
}

void SuspicionTable::heard(MemberId member) {
  detector_.heard(member);
  auto const found = peers_.find(member);
  if (found != peers_.end()) found->second.broken.clear();
}

bool SuspicionTable::note(MemberId member, Heartbeat const& heartbeat) {
  auto const found = peers_.find(member);
  if (found == peers_.end()) return false;
  auto& last = found->second.last;
  if (last && heartbeat.sequence <= last->sequence) return false;
  last = heartbeat;
  return true;
}

void SuspicionTable::broken(MemberId member, std::string what) {
  auto const found = peers_.find(member);
  if (found != peers_.end()) found->second.broken = std::move(what);
}

void SuspicionTable::accuse(MemberId member, std::string what, action::Instant until) {
  auto const found = peers_.find(member);
  if (found == peers_.end()) return;
  found->second.accused = std::move(what);
  found->second.accused_until = until;
}

bool SuspicionTable::certify(MemberId member, std::string what) {
  auto const found = peers_.find(member);
  if (found == peers_.end() || !certified_.insert(member)) return false;
  found->second.ended = std::move(what);
  return true;
}

std::string SuspicionTable::why(MemberId member) const {
  auto const found = peers_.find(member);
  if (found == peers_.end()) return "not in this view";
  auto const& peer = found->second;
  if (certified_.contains(member)) return "ended: " + peer.ended;
  if (!peer.broken.empty()) return "cannot be reached: " + peer.broken;
  if (!peer.accused.empty()) return peer.accused;
  return "silent for " + text::seconds(detector_.silence(member));
}

bool SuspicionTable::suspects(MemberId by, MemberId whom) const {
  if (by == self_) return suspects_.contains(whom);
  auto const* const heartbeat = last(by);
  return heartbeat != nullptr && heartbeat->suspects.contains(whom);
}

bool SuspicionTable::is_link_lost(MemberId a, MemberId b) const {
  return suspects(a, b) || suspects(b, a);
}

bool SuspicionTable::says_blocked(MemberId member) const {
  if (member == self_) return is_blocked_;
  auto const* const heartbeat = last(member);
  return heartbeat != nullptr && heartbeat->is_blocked;
}

bool SuspicionTable::may_lead(MemberId candidate) const {
  return std::all_of(electorate_.members.begin(), electorate_.members.end(), [&](MemberId member) {
    return member >= candidate || suspects_.contains(member) || certified_.contains(member) || says_blocked(member);
  });
}

bool SuspicionTable::may_promise_to(MemberId candidate) const {
  return !suspects_.contains(candidate) && !says_blocked(candidate) && may_lead(candidate);
}

bool SuspicionTable::is_anyone_suspected() const {
  if (!suspects_.empty()) return true;
  return std::any_of(peers_.begin(), peers_.end(), [](auto const& entry) {
    auto const& last = entry.second.last;
    return last && !last->suspects.empty();
  });
}

bool SuspicionTable::is_ballot_open_elsewhere() const {
  return highest_promise().number > 0;
}

Ballot SuspicionTable::highest_promise() const {
  Ballot highest;
  for (auto const& [member, peer] : peers_)
    if (peer.last) highest = std::max(highest, peer.last->promised);
  return highest;
}

bool SuspicionTable::is_leaving(MemberId member) const {
  auto const* const heartbeat = last(member);
  return heartbeat != nullptr && heartbeat->is_leaving;
}

Heartbeat const* SuspicionTable::last(MemberId member) const {
  auto const found = peers_.find(member);
  return found == peers_.end() || !found->second.last ? nullptr : &*found->second.last;
}

MemberSet SuspicionTable::refresh(action::Instant now) {
  MemberSet suspects;
  MemberSet both{self_};
  for (auto& [member, peer] : peers_) {
    if (!peer.accused.empty() && now >= peer.accused_until) peer.accused.clear();
    if (certified_.contains(member) || !peer.broken.empty() || !peer.accused.empty() || detector_.is_silent(member))
      suspects.insert(member);
    else if (!peer.last || !peer.last->suspects.contains(self_))
      both.insert(member);
  }
  MemberSet added;
  for (auto const member : suspects)
    if (!suspects_.contains(member)) added.insert(member);
  suspects_ = std::move(suspects);
  // Under the certified rule every suspicion would block, and the remedy is the supervisor's.
  is_blocked_ = electorate_.rule == QuorumRule::majority && !is_quorum(electorate_, both, certified_);
  return added;
}

}  // namespace holdfast::protocol
