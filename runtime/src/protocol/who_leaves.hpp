#pragma once

#include <functional>

#include "member_set.hpp"

namespace holdfast::protocol {

/// Whether the link between two members is lost in either direction.
using LinkLost = std::function<bool(MemberId, MemberId)>;

/// Repeatedly drops the member with most lost links to the others, of several the highest, until no lost link is left.
/// Every member may be dropped, the one that asks too.
[[nodiscard]] MemberSet without_lost_links(MemberSet members, LinkLost const& is_lost);

}  // namespace holdfast::protocol
