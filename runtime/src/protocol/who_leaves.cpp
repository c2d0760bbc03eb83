#include "who_leaves.hpp"

#include <algorithm>

namespace holdfast::protocol {

MemberSet without_lost_links(MemberSet members, LinkLost const& is_lost) {
  while (true) {
    std::ptrdiff_t most = 0;
    MemberId worst{};
    for (auto const member : members) {
      auto const lost = std::count_if(members.begin(), members.end(), [&](MemberId other) {
        return other != member && (is_lost(member, other) || is_lost(other, member));
      });
      if (lost > 0 && lost >= most) {
        most = lost;
        worst = member;
      }
    }
    if (most == 0) return members;
    members.erase(worst);
  }
}

}  // namespace holdfast::protocol
