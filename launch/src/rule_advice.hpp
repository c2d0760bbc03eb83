#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <holdfast/collectives/rule.hpp>

namespace holdfast::launch {

/// The largest f that the rule tolerates among so many members; none below 0 are tried. -1 if it tolerates not even 0.
[[nodiscard]] int greatest_byzantine(Rule const& rule, int members);

/// Work of one round over all owners, for n members and d elements: "n^2 d", "n log n d".
[[nodiscard]] std::string_view cost_of(std::string_view name);

struct RuleAdvice {
  std::string rule;  ///< text; empty when no rule tolerates f of these members
  std::string reason;
  std::string alternative;  ///< text; empty if there is none worth naming
  std::string why_not_it;
};

/// Which rule to take, from the accuracies of the digits tables (examples/robustness) and from what rules cost.
[[nodiscard]] RuleAdvice advise(int members, int byzantine, bool is_iid);

}  // namespace holdfast::launch
