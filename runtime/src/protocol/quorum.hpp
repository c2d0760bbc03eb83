#pragma once

#include <optional>

#include "value.hpp"

namespace holdfast::protocol {

/// Whose answers decide the next view, by the rule that the current view records.
struct Electorate {
  MemberSet members;
  QuorumRule rule = QuorumRule::majority;
  std::optional<MemberId> tie_breaker;
};

[[nodiscard]] Electorate electorate_of(Value const& value);

/// Whether those who answered may decide. Any two quorums of one electorate share a member that is able to answer in
/// both, whatever was certified in between: that is why the certified may stand in for at most half of the votes.
[[nodiscard]] bool is_quorum(Electorate const& electorate, MemberSet const& answered, MemberSet const& certified);

}  // namespace holdfast::protocol
