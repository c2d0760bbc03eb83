#include "quorum.hpp"

namespace holdfast::protocol {

Electorate electorate_of(Value const& value) {
  return {value.members(), value.quorum, value.tie_breaker};
}

bool is_quorum(Electorate const& electorate, MemberSet const& answered, MemberSet const& certified) {
  // Votes are counted in halves: a member has two, the tie breaker three.
  std::size_t all = 0;
  std::size_t given = 0;
  bool are_others_dead = true;
  for (auto const member : electorate.members) {
    std::size_t const votes = electorate.tie_breaker == member ? 3 : 2;
    all += votes;
    if (answered.contains(member))
      given += votes;
    else
      are_others_dead = are_others_dead && certified.contains(member);
  }
  if (electorate.rule == QuorumRule::certified) return are_others_dead && given > 0;
  if (2 * given > all) return true;
  return are_others_dead && 2 * (all - given) <= all;
}

}  // namespace holdfast::protocol
