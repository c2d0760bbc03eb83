#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "codecs/registry.hpp"

/// Scales of the codecs with a block scale: plain functions, the same for every instruction set.
namespace holdfast::codecs {

/// Why a block cannot be decoded.
enum class ScaleFault { none, flagged, impossible };

/// "block 3 (elements 768 to 1023) ..."
[[nodiscard]] inline std::string describe_block(std::size_t block, std::size_t block_elements, std::size_t elements) {
  std::size_t const begin = block * block_elements;
  std::size_t const end = std::min(elements, begin + block_elements);
  return "block " + std::to_string(block) + " (elements " + std::to_string(begin) + " to " + std::to_string(end - 1) +
         ")";
}

[[nodiscard]] inline std::string describe_fault(ScaleFault fault, std::uint32_t bits, int digits) {
  if (fault == ScaleFault::flagged) return " is flagged by its sender: it held NaN, an infinity or a value above 2^120";
  char text[64];
  std::snprintf(text, sizeof text, " has the scale 0x%0*x, which no encoder writes", digits, bits);
  return text;
}

/// Finds the first bad scale; Scale is one of the types below.
template <class Scale>
[[nodiscard]] std::string find_bad_scale(std::byte const* scales, std::size_t block_elements, std::size_t elements) {
  std::size_t const blocks = (elements + block_elements - 1) / block_elements;
  for (std::size_t block = 0; block < blocks; ++block) {
    auto const* const at = scales + block * Scale::kBytes;
    auto const fault = Scale::fault_of(at);
    if (fault != ScaleFault::none)
      return describe_block(block, block_elements, elements) +
             describe_fault(fault, Scale::bits_at(at), 2 * static_cast<int>(Scale::kBytes));
  }
  return {};
}

/// The upper kBytes bytes of a float32. A value of few digits times such a scale is exact.
template <std::size_t kStoredBytes, std::uint32_t kDroppedBits, std::uint32_t kFlag>
struct ShortFloatScale {
  static constexpr std::size_t kBytes = kStoredBytes;
  static constexpr std::uint32_t kMask = ~kDroppedBits;

  /// The largest magnitude over the largest code, rounded up so that no value lies above the largest code.
  [[nodiscard]] static float for_magnitude(std::uint32_t magnitude_bits, float largest_code) {
    float const quotient = std::bit_cast<float>(magnitude_bits) / largest_code;
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(quotient) + kDroppedBits) & kMask);
  }
  static void store(float scale, std::byte* to) { store_bits(std::bit_cast<std::uint32_t>(scale), to); }
  static void store_flag(std::byte* to) { store_bits(kFlag, to); }
  [[nodiscard]] static float load(std::byte const* from) { return std::bit_cast<float>(float_bits(from)); }
  /// As stored, for messages.
  [[nodiscard]] static std::uint32_t bits_at(std::byte const* from) { return float_bits(from) >> kUnstoredBits; }

  [[nodiscard]] static ScaleFault fault_of(std::byte const* from) {
    constexpr std::uint32_t kLeast = 0x00800000;  // the smallest normal number
    constexpr std::uint32_t kMost = 0x7A800000;   // 2^118
    auto const bits = float_bits(from);
    if (bits == kFlag) return ScaleFault::flagged;
    bool const is_legal = bits == 0 || (bits >= kLeast && bits <= kMost && (bits & kDroppedBits) == 0);
    return is_legal ? ScaleFault::none : ScaleFault::impossible;
  }

 private:
  static constexpr unsigned kUnstoredBits = 8 * (4 - kBytes);
  static void store_bits(std::uint32_t bits, std::byte* to) {
    for (std::size_t byte = 0; byte < kBytes; ++byte)
      to[byte] = static_cast<std::byte>(bits >> (kUnstoredBits + 8 * byte));
  }
  [[nodiscard]] static std::uint32_t float_bits(std::byte const* from) {
    std::uint32_t bits = 0;
    for (std::size_t byte = 0; byte < kBytes; ++byte)
      bits |= std::to_integer<std::uint32_t>(from[byte]) << (kUnstoredBits + 8 * byte);
    return bits;
  }
};

/// A bfloat16 pattern: with it the product with a code of 8 digits or fewer fits 24 digits.
using ShortScale = ShortFloatScale<2, 0xFFFF, 0x7FC00000>;
/// 16 digits, for the codes of int8.
using LongScale = ShortFloatScale<4, 0xFF, 0x7FC00000>;

}  // namespace holdfast::codecs
