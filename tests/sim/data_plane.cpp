#include "data_plane.hpp"

#include <utility>

namespace holdfast::sim {

std::uint64_t contribution(MemberId member, RoundId round) {
  return mix(mix(static_cast<std::uint64_t>(member), static_cast<std::uint64_t>(round.stream)), round.number);
}

Result result_of(ViewId view, RoundId round, MemberSet const& contributors) {
  std::uint64_t sum = 0;
  auto who = mix(static_cast<std::uint64_t>(view), round.number);
  for (auto const member : contributors) {
    sum += contribution(member, round);
    who = mix(who, static_cast<std::uint64_t>(member));
  }
  // A round with too few rows fails by its rule, which is a value like any other.
  return {{who, contributors.members() < 2 ? 0 : sum}, contributors};
}

Digest state_after(Digest state, Digest round) {
  return {mix(state.high, round.high), mix(state.low, round.low)};
}

void Stream::begin_view(ViewId view, MemberSet members, MemberId self) {
  view_ = view;
  members_ = std::move(members);
  self_ = self;
  work_.clear();
}

bool Stream::has_any_row() const {
  auto const found = work_.find(committed_ + 1);
  return found != work_.end() && !found->second.rows.empty();
}

std::optional<MemberSet> Stream::fix_mask(bool must) {
  auto& work = work_[committed_ + 1];
  if (work.is_fixed || (!must && work.rows.members() < members_.members())) return std::nullopt;
  work.is_fixed = true;
  return work.rows;
}

std::optional<Result> Stream::complete() const {
  auto const found = work_.find(committed_ + 1);
  if (found == work_.end() || held_ || found->second.masks.size() < members_.members()) return std::nullopt;
  MemberSet contributors;
  for (auto const member : members_) {
    bool is_in_all = true;
    for (auto const& [owner, set] : found->second.masks) is_in_all = is_in_all && set.contains(member);
    if (is_in_all) contributors.insert(member);
  }
  return result_of(view_, {id_, committed_ + 1}, contributors);
}

Result Stream::commit() {
  auto result = std::move(*held_);
  held_.reset();
  ++committed_;
  state_ = state_after(state_, result.digest);
  is_computed_ = false;
  work_.erase(work_.begin(), work_.upper_bound(committed_));
  return result;
}

void Stream::load(std::uint64_t round, Digest state) {
  committed_ = round;
  state_ = state;
  held_.reset();
  is_computed_ = false;
}

}  // namespace holdfast::sim
