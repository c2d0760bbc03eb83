#include <algorithm>
#include <cstdint>
#include <cstring>

#include <hwy/cache_control.h>

#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/stream_copy.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

constexpr std::size_t kCacheLine = 64;

/// The destination begins on a cache line and is a whole number of them.
void stream_lines(std::byte* destination, std::byte const* source, std::size_t bytes) {
  hn::CappedTag<std::uint8_t, kCacheLine> const d;
  std::size_t const lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < bytes; i += lanes)
    hn::Stream(load_lanes(d, source + i), d, reinterpret_cast<std::uint8_t*>(destination + i));
  // Streamed stores are weakly ordered: without this, a flag written next could be seen before them.
  hwy::FlushStream();
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(stream_lines);

void stream_copy(std::byte* destination, std::byte const* source, std::size_t bytes) {
  // Below this a copy through the caches costs less than waiting for the streamed stores to drain.
  constexpr std::size_t kSmall = 4096;
  constexpr std::size_t kLine = 64;
  if (bytes < kSmall) {
    if (bytes != 0) std::memcpy(destination, source, bytes);
    return;
  }
  std::size_t const head = (kLine - reinterpret_cast<std::uintptr_t>(destination) % kLine) % kLine;
  std::memcpy(destination, source, head);
  std::size_t const lines = (bytes - head) / kLine * kLine;
  HWY_DYNAMIC_DISPATCH(stream_lines)(destination + head, source + head, lines);
  std::memcpy(destination + head + lines, source + head + lines, bytes - head - lines);
}

}  // namespace holdfast::kernels
#endif
