#include "rules/registry.hpp"

// One line per rule or mixer, in the order of the documentation; NAME_entry() is defined in the rule's own file.
#define HOLDFAST_RULES(ENTRY) \
  ENTRY(mean)                 \
  ENTRY(median)               \
  ENTRY(trimmed_mean)         \
  ENTRY(meamed)               \
  ENTRY(phocas)               \
  ENTRY(majority_vote)        \
  ENTRY(krum)                 \
  ENTRY(multi_krum)           \
  ENTRY(bulyan)               \
  ENTRY(mda)                  \
  ENTRY(mva)                  \
  ENTRY(smea)                 \
  ENTRY(geometric_median)     \
  ENTRY(centered_clipping)    \
  ENTRY(nna)                  \
  ENTRY(cge)                  \
  ENTRY(caf)                  \
  ENTRY(flag)                 \
  ENTRY(nnm)                  \
  ENTRY(bucketing)            \
  ENTRY(arc)                  \
  ENTRY(static_clipping)

namespace holdfast::rules {

#define HOLDFAST_DECLARE(name) Entry name##_entry();
HOLDFAST_RULES(HOLDFAST_DECLARE)
#undef HOLDFAST_DECLARE

std::span<Entry const> registry() {
#define HOLDFAST_LIST(name) name##_entry(),
  static std::vector<Entry> const entries{HOLDFAST_RULES(HOLDFAST_LIST)};
#undef HOLDFAST_LIST
  return entries;
}

}  // namespace holdfast::rules
