#pragma once

#include <map>

#include <holdfast/runtime/outcome.hpp>

#include "message.hpp"
#include "value.hpp"

namespace holdfast::protocol {

using Promises = std::map<MemberId, Promise>;

/// The value that a ballot must propose: the one accepted in the highest earlier ballot, unchanged; nothing when no
/// promiser has accepted any, so that the proposer is free.
[[nodiscard]] std::optional<Value> value_to_adopt(Promises const& promises);

/// What a free proposer decides to do.
struct Plan {
  MemberSet stayers;            ///< promisers of the ballot, and only those
  std::vector<Seat> newcomers;  ///< their ids are above every id named before
  bool hands_over = false;
};
/// @return diverged when two promisers hold different results of one round
[[nodiscard]] Outcome<Value> fresh_value(Value const& current, Promises const& promises, Plan const& plan);

}  // namespace holdfast::protocol
