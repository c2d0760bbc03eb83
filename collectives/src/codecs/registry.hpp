#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace holdfast::codecs {

/// Bits of |x| from which a block is flagged: 2^120, with infinities and NaN above it.
inline constexpr std::uint32_t kFlagMagnitude = 0x7B800000;
/// Bits of the largest |x| of a block below which the block is written as zeros: 2^-100.
inline constexpr std::uint32_t kZeroMagnitude = 0x0D800000;

/// The two sections of a payload, or of whole blocks within it.
struct Sections {
  std::byte const* scales;
  std::byte const* codes;
};

/// A codec: its layout and its work on a run of whole blocks (the last may be short).
struct Entry {
  std::string name;
  std::string short_name;
  std::uint8_t id;
  std::size_t block_elements;
  std::size_t scale_bytes;  ///< per block
  std::size_t code_bits;    ///< per element; the codes of a full block fill whole bytes
  std::string summary;

  /// @return whether a block was flagged
  bool (*encode)(float const* values, std::size_t elements, std::byte* scales, std::byte* codes);
  /// Requires sound blocks.
  void (*decode)(Sections from, std::size_t elements, float* out);
  /// sum = fl(sum + fl(coefficient * value)). Requires sound blocks.
  void (*accumulate)(Sections from, std::size_t elements, float coefficient, float* sum);
  /// Empty if every block is sound, else what is wrong with the first one that is not.
  std::string (*find_fault)(Sections from, std::size_t elements);

  [[nodiscard]] std::uint64_t blocks(std::uint64_t elements) const {
    return elements / block_elements + (elements % block_elements != 0 ? 1 : 0);
  }
  [[nodiscard]] std::uint64_t scales_bytes(std::uint64_t elements) const { return blocks(elements) * scale_bytes; }
  [[nodiscard]] std::uint64_t codes_bytes(std::uint64_t elements) const {
    // Eight codes fill `code_bits` bytes: no product that could overflow before the division.
    return elements / 8 * code_bits + (elements % 8 * code_bits + 7) / 8;
  }
};

/// All of them, in the order of the documentation. To add one: write its file, list it in registry.cpp.
[[nodiscard]] std::span<Entry const> registry();

}  // namespace holdfast::codecs
