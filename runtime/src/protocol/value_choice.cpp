#include "value_choice.hpp"

#include <algorithm>
#include <utility>

#include "verdict.hpp"

namespace holdfast::protocol {
namespace {

/// The finaliser of SplitMix64: every view gets its own stream of random numbers from one seed.
std::uint64_t next_seed(std::uint64_t seed) {
  seed += 0x9E37'79B9'7F4A'7C15U;
  seed = (seed ^ (seed >> 30U)) * 0xBF58'476D'1CE4'E5B9U;
  seed = (seed ^ (seed >> 27U)) * 0x94D0'49BB'1331'11EBU;
  return seed ^ (seed >> 31U);
}

}  // namespace

std::optional<Value> value_to_adopt(Promises const& promises) {
  Promise const* newest = nullptr;
  for (auto const& [member, promise] : promises)
    if (promise.accepted && (newest == nullptr || newest->accepted_ballot < promise.accepted_ballot)) newest = &promise;
  if (newest == nullptr) return std::nullopt;
  // Whole: its members that have not promised in this ballot are frozen since an earlier one.
  auto value = *newest->accepted;
  return value;
}

Outcome<Value> fresh_value(Value const& current, Promises const& promises, Plan const& plan) {
  Reports reports;
  for (auto const& [member, promise] : promises) reports[member] = promise.report;
  auto verdicts = resolve(reports, plan.stayers, plan.hands_over);
  if (!verdicts) return fail(std::move(verdicts.error()));

  Value value;
  value.number = ViewId{static_cast<std::uint64_t>(current.number) + 1};
  value.verdicts = std::move(*verdicts);
  value.quorum = current.quorum;
  value.highest_named = current.highest_named;
  value.seed = next_seed(current.seed);
  for (auto const& seat : current.seats)
    if (plan.stayers.contains(seat.member.id)) value.seats.push_back(seat);
  for (auto const& seat : plan.newcomers) {
    value.seats.push_back(seat);
    value.highest_named = std::max(value.highest_named, seat.member.id);
  }
  std::sort(value.seats.begin(), value.seats.end(),
            [](Seat const& a, Seat const& b) { return a.member.id < b.member.id; });
  if (current.tie_breaker && plan.stayers.contains(*current.tie_breaker)) value.tie_breaker = current.tie_breaker;
  return value;
}

}  // namespace holdfast::protocol
