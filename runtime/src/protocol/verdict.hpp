#pragma once

#include <map>
#include <string>

#include <holdfast/runtime/outcome.hpp>

#include "report.hpp"
#include "value.hpp"

namespace holdfast::protocol {

using Reports = std::map<MemberId, Report>;

/// Where each stream stands after the view of these reports, by all promisers of one ballot, those included that do not
/// stay: rounds up to L = max(largest committed, smallest held) are committed. Every promiser holds them, since a
/// commit needed everybody's READY and nobody completes a result after promising.
/// @param stayers     who can hand over a finished result of round L + 1
/// @param hands_over  whether verdicts name them
/// @return diverged when two promisers hold different results of one round
[[nodiscard]] Outcome<std::vector<StreamVerdict>> resolve(Reports const& reports, MemberSet const& stayers,
                                                          bool hands_over);

}  // namespace holdfast::protocol
