#include <algorithm>
#include <cstring>

#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/identity.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"
#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

namespace lanes = kernels::HWY_NAMESPACE;

std::uint32_t find_largest(float const* values, std::size_t elements) {
  return largest_magnitude(values, elements);
}

void accumulate(std::byte const* codes, std::size_t elements, float coefficient, float* sum) {
  Accumulate const sink{coefficient, sum};
  lanes::for_each_vector<float>(
      elements, [&](auto d, std::size_t i) HWY_ATTR { sink(d, lanes::load_lanes(d, codes + 4 * i), i); });
}

}  // namespace
}  // namespace holdfast::codecs::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::codecs {
namespace {

HWY_EXPORT(find_largest);
HWY_EXPORT(accumulate);

constexpr std::size_t kAtOnce = 1024;

bool encode(float const* values, std::size_t elements, std::byte* /*scales*/, std::byte* codes) {
  bool flagged = false;
  for (std::size_t begin = 0; begin < elements; begin += kAtOnce) {
    std::size_t const count = std::min(kAtOnce, elements - begin);
    flagged |= HWY_DYNAMIC_DISPATCH(find_largest)(values + begin, count) >= kFlagMagnitude;
    std::memcpy(codes + begin * sizeof(float), values + begin, count * sizeof(float));
  }
  return flagged;
}

void decode(Sections from, std::size_t elements, float* out) {
  if (elements != 0) std::memcpy(out, from.codes, elements * sizeof(float));
}

/// The payload of a row from elsewhere may begin anywhere, so the values are copied before they are read as floats.
std::string find_bad_value(std::byte const* codes, std::size_t elements) {
  float values[kAtOnce];
  for (std::size_t begin = 0; begin < elements; begin += kAtOnce) {
    std::size_t const count = std::min(kAtOnce, elements - begin);
    std::memcpy(values, codes + begin * sizeof(float), count * sizeof(float));
    if (HWY_DYNAMIC_DISPATCH(find_largest)(values, count) <= kFlagMagnitude) continue;
    auto const is_bad = [](float value) {
      return (std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU) > kFlagMagnitude;
    };
    auto const found = static_cast<std::size_t>(std::find_if(values, values + count, is_bad) - values);
    return "element " + std::to_string(begin + found) + describe_fault(ScaleFault::flagged, 0, 8);
  }
  return {};
}

}  // namespace

Entry identity_entry() {
  return {.name = "identity",
          .short_name = "identity",
          .id = 0,
          .block_elements = 1,
          .scale_bytes = 0,
          .code_bits = 32,
          .summary = "the float32 values themselves",
          .encode = encode,
          .decode = decode,
          .accumulate =
              [](Sections from, std::size_t elements, float coefficient, float* sum) {
                HWY_DYNAMIC_DISPATCH(accumulate)
                (from.codes, elements, coefficient, sum);
              },
          .find_fault = [](Sections from, std::size_t elements) { return find_bad_value(from.codes, elements); }};
}

}  // namespace holdfast::codecs
#endif
