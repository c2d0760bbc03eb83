#include "value.hpp"

#include <algorithm>
#include <utility>

namespace holdfast::protocol {

bool Value::names(MemberId member) const {
  return std::any_of(seats.begin(), seats.end(), [&](Seat const& seat) { return seat.member.id == member; });
}

MemberSet Value::members() const {
  std::vector<MemberId> ids;
  ids.reserve(seats.size());
  for (auto const& seat : seats) ids.push_back(seat.member.id);
  return MemberSet(std::move(ids));
}

View Value::view() const {
  View view;
  view.id = number;
  for (auto const& seat : seats) view.members.push_back(seat.member);
  return view;
}

StreamVerdict Value::verdict(StreamId stream) const {
  auto const found = std::lower_bound(verdicts.begin(), verdicts.end(), stream,
                                      [](StreamVerdict const& verdict, StreamId id) { return verdict.stream < id; });
  if (found != verdicts.end() && found->stream == stream) return *found;
  StreamVerdict none;
  none.stream = stream;
  return none;
}

Value first_value(std::vector<Seat> seats, QuorumRule quorum, std::optional<MemberId> tie_breaker, std::uint64_t seed) {
  Value value;
  value.number = ViewId{1};
  value.seats = std::move(seats);
  std::sort(value.seats.begin(), value.seats.end(),
            [](Seat const& a, Seat const& b) { return a.member.id < b.member.id; });
  value.quorum = quorum;
  value.tie_breaker = tie_breaker;
  if (!value.seats.empty()) value.highest_named = value.seats.back().member.id;
  value.seed = seed;
  return value;
}

}  // namespace holdfast::protocol
