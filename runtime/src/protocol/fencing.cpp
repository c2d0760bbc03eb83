#include "fencing.hpp"

#include <algorithm>

namespace holdfast::protocol {

void FencingArbiter::note_view(ViewId view, std::vector<MemberId> const& members) {
  if (view <= view_) return;
  view_ = view;
  members_ = MemberSet(members);
}

void FencingArbiter::request(FenceRequest const& request) {
  note_view(request.view, request.members);
  requests_.push_back(request);
}

std::optional<MemberId> FencingArbiter::decide() {
  auto const requests = std::exchange(requests_, {});
  if (awaited_) return std::nullopt;
  auto const is_eligible = [&](MemberId member) {
    return members_.contains(member) && !fenced_.contains(member) && !certified_.contains(member);
  };
  auto const alive = std::count_if(members_.begin(), members_.end(), is_eligible);
  if (alive <= 1) return std::nullopt;  // Somebody must be left to go on.
  for (auto const& request : requests) {
    if (request.view != view_ || !is_eligible(request.requester) || !is_eligible(request.suspect)) continue;
    fenced_.insert(request.suspect);
    awaited_ = request.suspect;
    return request.suspect;
  }
  return std::nullopt;
}

std::vector<MemberId> FencingArbiter::on_ended(MemberId member) {
  if (awaited_ == member) awaited_.reset();
  if (!certified_.insert(member)) return {};
  return {member};
}

}  // namespace holdfast::protocol
