#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "codecs/registry.hpp"

/// bfloat16 as it travels: no infinities, no subnormals, no -0.
namespace holdfast::codecs {

inline constexpr std::uint16_t kBFloat16Flag = 0x7FC0;
/// 2^120: what values just below it are rounded up to.
inline constexpr std::uint16_t kBFloat16Largest = 0x7B80;
inline constexpr std::uint16_t kBFloat16SmallestNormal = 0x0080;

/// Rounded to nearest, ties to even; kBFloat16Flag from 2^120 on.
[[nodiscard]] constexpr std::uint16_t to_bfloat16(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  auto const magnitude = bits & 0x7FFFFFFFU;
  if (magnitude >= kFlagMagnitude) return kBFloat16Flag;
  if (magnitude < 0x00800000U) return 0;
  return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

[[nodiscard]] constexpr bool is_legal_bfloat16(std::uint16_t code) {
  return (code & 0x7FFFU) <= kBFloat16Largest;
}

[[nodiscard]] constexpr float from_bfloat16(std::uint16_t code) {
  bool const is_zero = (code & 0x7FFFU) < kBFloat16SmallestNormal;
  return is_zero ? 0.0F : std::bit_cast<float>(static_cast<std::uint32_t>(code) << 16);
}

[[nodiscard]] constexpr std::uint16_t load_bfloat16(std::byte const* from) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(from[0]) | std::to_integer<unsigned>(from[1]) << 8);
}
constexpr void store_bfloat16(std::uint16_t code, std::byte* to) {
  to[0] = static_cast<std::byte>(code & 0xFFU);
  to[1] = static_cast<std::byte>(code >> 8);
}

}  // namespace holdfast::codecs
