#include <algorithm>
#include <cstdint>

#include <holdfast/runtime/log.hpp>

#include "targets.hpp"

/// One program per target (HOLDFAST_FUZZ_TARGET) for clang's libFuzzer.
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t bytes) {
  static auto const& target = [&]() -> holdfast::fuzz::Target const& {
    holdfast::set_log_level("off");
    auto const& all = holdfast::fuzz::targets();
    return *std::find_if(all.begin(), all.end(), [](auto const& each) { return each.name == HOLDFAST_FUZZ_TARGET; });
  }();
  target.run({reinterpret_cast<std::byte const*>(data), bytes});
  return 0;
}
