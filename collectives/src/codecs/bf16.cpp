#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "codecs/bfloat16.hpp"
#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/bf16.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"
#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

namespace lanes = kernels::HWY_NAMESPACE;

/// @return the bits of the largest magnitude
std::uint32_t encode(float const* values, std::size_t elements, std::byte* codes) {
  hn::ScalableTag<std::int32_t> const full;
  auto largest = hn::Zero(full);
  std::int32_t largest_at_end = 0;
  lanes::for_each_vector<float>(elements, [&](auto d, std::size_t i) HWY_ATTR {
    Int32<decltype(d)> const di;
    hn::Rebind<std::uint16_t, decltype(d)> const d16;
    auto const bits = hn::BitCast(di, hn::LoadU(d, values + i));
    auto const magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
    auto const sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 0x8000));
    auto const odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(di, 1));
    auto const rounded = hn::ShiftRight<16>(hn::Add(magnitude, hn::Add(odd, hn::Set(di, 0x7FFF))));
    auto const is_normal = hn::Gt(magnitude, hn::Set(di, 0x007FFFFF));
    auto const is_flagged = hn::Gt(magnitude, hn::Set(di, static_cast<std::int32_t>(kFlagMagnitude - 1)));
    auto const code = hn::IfThenElseZero(is_normal, hn::Or(rounded, sign));
    auto const result = hn::IfThenElse(is_flagged, hn::Set(di, std::int32_t{kBFloat16Flag}), code);
    lanes::store_lanes(d16, hn::DemoteTo(d16, result), codes + i * 2);
    if constexpr (std::is_same_v<std::remove_const_t<decltype(di)>, std::remove_const_t<decltype(full)>>) {
      largest = hn::Max(largest, magnitude);
    } else {
      largest_at_end = std::max(largest_at_end, hn::GetLane(magnitude));
    }
  });
  return static_cast<std::uint32_t>(std::max(largest_at_end, hn::GetLane(hn::MaxOfLanes(full, largest))));
}

template <class Sink>
HWY_INLINE void decode_to(std::byte const* codes, std::size_t elements, Sink const& sink) {
  lanes::for_each_vector<float>(elements, [&](auto d, std::size_t i) HWY_ATTR {
    Int32<decltype(d)> const di;
    hn::Rebind<std::uint16_t, decltype(d)> const d16;
    auto const bits = hn::ShiftLeft<16>(hn::PromoteTo(di, lanes::load_lanes(d16, codes + i * 2)));
    auto const magnitude = hn::And(bits, hn::Set(di, 0x7FFFFFFF));
    auto const is_normal = hn::Gt(magnitude, hn::Set(di, 0x007FFFFF));
    sink(d, hn::BitCast(d, hn::IfThenElseZero(is_normal, bits)), i);
  });
}
void decode(std::byte const* codes, std::size_t elements, float* out) {
  decode_to(codes, elements, Store{out});
}
void accumulate(std::byte const* codes, std::size_t elements, float coefficient, float* sum) {
  decode_to(codes, elements, Accumulate{coefficient, sum});
}

}  // namespace
}  // namespace holdfast::codecs::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::codecs {
namespace {

HWY_EXPORT(encode);
HWY_EXPORT(decode);
HWY_EXPORT(accumulate);

/// Looks for the largest magnitude of a stretch first: that loop becomes vector instructions.
std::string find_bad_code(std::byte const* codes, std::size_t elements) {
  constexpr std::size_t kAtOnce = 1024;
  std::array<std::int16_t, kAtOnce> magnitudes;
  for (std::size_t begin = 0; begin < elements; begin += kAtOnce) {
    std::size_t const count = std::min(kAtOnce, elements - begin);
    std::memcpy(magnitudes.data(), codes + 2 * begin, 2 * count);
    std::int16_t largest = 0;
    for (std::size_t i = 0; i < count; ++i)
      largest = std::max(largest, static_cast<std::int16_t>(magnitudes[i] & 0x7FFF));
    if (largest <= kBFloat16Largest) continue;
    for (std::size_t i = begin; i < begin + count; ++i) {
      auto const code = load_bfloat16(codes + 2 * i);
      if (!is_legal_bfloat16(code))
        return "element " + std::to_string(i) + describe_fault(ScaleFault::flagged, code, 4);
    }
  }
  return {};
}

}  // namespace

Entry bf16_entry() {
  return {.name = "bf16",
          .short_name = "bf16",
          .id = 1,
          .block_elements = 1,
          .scale_bytes = 0,
          .code_bits = 16,
          .summary = "the upper half of a float32",
          .encode =
              [](float const* values, std::size_t elements, std::byte*, std::byte* codes) {
                return HWY_DYNAMIC_DISPATCH(encode)(values, elements, codes) >= kFlagMagnitude;
              },
          .decode =
              [](Sections from, std::size_t elements, float* out) {
                HWY_DYNAMIC_DISPATCH(decode)
                (from.codes, elements, out);
              },
          .accumulate =
              [](Sections from, std::size_t elements, float coefficient, float* sum) {
                HWY_DYNAMIC_DISPATCH(accumulate)
                (from.codes, elements, coefficient, sum);
              },
          .find_fault = [](Sections from, std::size_t elements) { return find_bad_code(from.codes, elements); }};
}

}  // namespace holdfast::codecs
#endif
