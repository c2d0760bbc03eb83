#include "codecs/registry.hpp"

#include <vector>

// One line per codec, in the order of the documentation; NAME_entry() is defined in the codec's own file.
#define HOLDFAST_CODECS(ENTRY) \
  ENTRY(identity)              \
  ENTRY(bf16)                  \
  ENTRY(e3m0)                  \
  ENTRY(e2m1)                  \
  ENTRY(int4)                  \
  ENTRY(int8)                  \
  ENTRY(fp8_e4m3)              \
  ENTRY(int2)

namespace holdfast::codecs {

#define HOLDFAST_DECLARE(name) Entry name##_entry();
HOLDFAST_CODECS(HOLDFAST_DECLARE)
#undef HOLDFAST_DECLARE

std::span<Entry const> registry() {
#define HOLDFAST_LIST(name) name##_entry(),
  static std::vector<Entry> const entries{HOLDFAST_CODECS(HOLDFAST_LIST)};
#undef HOLDFAST_LIST
  return entries;
}

}  // namespace holdfast::codecs
