#include "rule_advice.hpp"

#include <array>
#include <utility>

namespace holdfast::launch {
namespace {

/// Up to so many members the eigenproblems of caf take less time than the Gram of a million elements.
constexpr int kMostMembersForCaf = 64;

}  // namespace

int greatest_byzantine(Rule const& rule, int members) {
  for (int f = members - 1; f >= 0; --f)
    if (rule.check_bounds(members, f)) return f;
  return -1;
}

std::string_view cost_of(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 19> kCosts{{
      {"mean", "n d"},
      {"majority_vote", "n d"},
      {"median", "n log^2 n d"},
      {"trimmed_mean", "n log^2 n d"},
      {"meamed", "n log^2 n d"},
      {"phocas", "n log^2 n d"},
      {"mda", "n^2 d + 2^f at worst"},
      {"mva", "n^2 d + (n over f) at worst"},
      {"smea", "n^2 d + (n over f) n^2"},
      {"caf", "n^2 d + f n^3"},
      {"flag", "n^2 d + n^3"},
      {"bulyan", "n^2 d + n log^2 n d"},
      {"geometric_median", "n^2 d"},
      {"centered_clipping", "n^2 d"},
      {"nna", "n^2 d"},
      {"nnm", "n^2 d before a rule on Gram, 2 n^2 d before one on elements"},
      {"bucketing", "n d"},
      {"arc", "n^2 d"},
      {"static_clipping", "n^2 d"},
  }};
  for (auto const& [rule, cost] : kCosts)
    if (rule == name) return cost;
  return "n^2 d";
}

RuleAdvice advise(int members, int byzantine, bool is_iid) {
  auto const n = std::to_string(members);
  auto const f = std::to_string(byzantine);
  if (byzantine == 0)
    return {"mean",
            "nobody is expected to lie; a row with NaN or infinity fails the round loudly, and it costs the least",
            "trimmed_mean with f = 1", "if one member may lie after all"};
  if (2 * byzantine >= members)
    return {"",
            "no rule tolerates f = " + f + " of n = " + n + ": liars must be fewer than half; take at least " +
                std::to_string(2 * byzantine + 1) + " members",
            "", ""};
  std::string const where = is_iid ? "data alike at all members" : "different data at each member";
  if (members > kMostMembersForCaf)
    return {"nnm+trimmed_mean",
            "it tolerates f up to " + std::to_string((members - 1) / 2) +
                " with an error of the best possible order, also for " + where +
                "; caf solves up to 2f eigenproblems of n x n, which takes long for n = " + n,
            "caf", "it held a little better in the digits tables, where that time does not matter"};
  return {"caf",
          std::string("of all rules it held best against all attacks of the digits tables for ") + where +
              (is_iid ? " (worst cell 95.2 %)" : " (worst cell 93.4 %; krum and cge fall below 35 % there)") +
              ", at the cost of one Gram matrix",
          "nnm+trimmed_mean",
          std::string("its error has a proven bound of the best possible order f/n; worst cell ") +
              (is_iid ? "93.3 %" : "90.8 %") + ", and twice the time"};
}

}  // namespace holdfast::launch
