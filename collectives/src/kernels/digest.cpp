#include "kernels/digest.hpp"

#include <cstring>

#include <xxhash.h>

#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/digest.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

constexpr std::size_t kGroupLanes = Digester::kLanes;

/// `groups` times 32 words.
void fold_groups(std::uint32_t* state, std::byte const* data, std::size_t groups) {
  hn::CappedTag<std::uint32_t, 8> const d;
  constexpr std::size_t kVectors = kGroupLanes / hn::MaxLanes(d);
  std::size_t const lanes = hn::Lanes(d);
  auto const multiplier = hn::Set(d, Digester::kMultiplier);
  hn::Vec<decltype(d)> accumulators[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) accumulators[v] = hn::LoadU(d, state + v * lanes);
  for (std::size_t group = 0; group < groups; ++group)
    for (std::size_t v = 0; v < kVectors; ++v) {
      auto const* const word = data + (group * kGroupLanes + v * lanes) * sizeof(std::uint32_t);
      accumulators[v] = hn::Add(hn::Mul(accumulators[v], multiplier), load_lanes(d, word));
    }
  for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(accumulators[v], d, state + v * lanes);
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(fold_groups);

void Digester::add(std::byte const* data, std::size_t bytes) {
  constexpr std::size_t kGroupBytes = kLanes * sizeof(std::uint32_t);
  std::size_t const groups = bytes / kGroupBytes;
  if (groups > 0) HWY_DYNAMIC_DISPATCH(fold_groups)(lanes_.data(), data, groups);
  if (std::size_t const rest = bytes % kGroupBytes; rest > 0) {
    std::array<std::byte, kGroupBytes> last{};
    std::memcpy(last.data(), data + groups * kGroupBytes, rest);
    HWY_DYNAMIC_DISPATCH(fold_groups)(lanes_.data(), last.data(), 1);
  }
  bytes_ += bytes;
}

std::uint64_t Digester::value() const {
  return XXH3_64bits_withSeed(lanes_.data(), sizeof lanes_, bytes_);
}

}  // namespace holdfast::kernels
#endif
