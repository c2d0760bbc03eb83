#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

namespace codecs {
struct Entry;
}

/// One line of the table of codecs.
struct CodecDescription {
  std::string name;         ///< e3m0_b256
  std::string short_name;   ///< e3m0
  std::uint8_t id;          ///< travels in contribution headers
  std::size_t block;        ///< elements that share a scale; 1 where there is none
  double bits_per_element;  ///< of long vectors, scales included
  std::string summary;      ///< what it is for, half a line
};

/// How float32 vectors are written on the wire: a lossy or lossless code, without any state.
///
/// A vector of n elements becomes a payload of exactly payload_bytes(n) bytes: first the scales of all blocks, then all
/// codes. Blocks run over the vector from element 0, so the code of a vector that is cut at multiples of
/// kCutElements is made of the codes of its pieces.
///
/// Determinism: the same bytes and the same floats on every machine, instruction set and floating-point mode of the
///              calling thread. Decoding is exact.
/// Idempotent:  encode(decode(p)) == p for every p that encode wrote, except by int2_b1024.
/// Threads:     immutable value, cheap to copy; all functions are reentrant
/// Source:      Douillard et al. 2025 (arXiv 2501.18512) for e3m0, whose block, scale and rounding are ours; OCP
///              microscaling formats for e2m1 and fp8_e4m3
class Codec {
 public:
  /// A multiple of every codec's block.
  static constexpr std::size_t kCutElements = 1024;
  /// Values from here on (2^120) are flagged like infinities, so that no sum over contributors can overflow.
  static constexpr float kLimit = 0x1p120F;

  /// `e3m0_b256` or its short form `e3m0`.
  /// @throws Error bad_argument naming the unknown codec and listing the valid ones
  [[nodiscard]] static Codec parse(std::string_view text);
  /// The codec that a header names; none for an id that this build does not know.
  [[nodiscard]] static std::optional<Codec> with_id(std::uint8_t id);
  /// Every codec of this build, in the order of the documentation.
  [[nodiscard]] static std::vector<CodecDescription> all();

  /// The full name: equal texts behave equally.
  [[nodiscard]] std::string const& text() const;
  [[nodiscard]] std::uint8_t id() const;
  [[nodiscard]] double bits_per_element() const;
  [[nodiscard]] bool is_identity() const { return id() == 0; }
  /// Below 4 bits the error of one code must ride in the next one, or training suffers.
  [[nodiscard]] bool needs_error_feedback() const { return bits_per_element() < 4; }
  [[nodiscard]] std::uint64_t payload_bytes(std::uint64_t elements) const;

  enum class [[nodiscard]] Encoded : bool{
      finite,
      flagged,  ///< some element is NaN, infinite or at least kLimit: whoever decodes this payload refuses it
  };

  /// @param values   [n], any float32
  /// @param payload  payload_bytes(n) bytes; may not overlap `values`
  /// @throws Error   (Errc::bad_argument) for a payload of another size
  Encoded encode(std::span<float const> values, std::span<std::byte> payload) const;

  /// Whether `payload` is the code of `elements` finite values.
  /// @return corrupt_message naming the first impossible block otherwise, or the wrong length
  [[nodiscard]] Outcome<void> check(std::span<std::byte const> payload, std::uint64_t elements) const;

  /// out = the decoded values; never -0, except by identity, which keeps all bits.
  /// @return as check(); then `out` keeps its values
  [[nodiscard]] Outcome<void> decode(std::span<std::byte const> payload, std::span<float> out) const;

  /// sum = fl(sum + fl(coefficient * decoded value)), each operation rounded by itself.
  /// @return as check(); then `sum` keeps its values
  [[nodiscard]] Outcome<void> accumulate(std::span<std::byte const> payload, float coefficient,
                                         std::span<float> sum) const;

  friend bool operator==(Codec const& a, Codec const& b) { return a.entry_ == b.entry_; }

 private:
  explicit Codec(codecs::Entry const& entry) : entry_(&entry) {}
  codecs::Entry const* entry_;
};

}  // namespace holdfast
