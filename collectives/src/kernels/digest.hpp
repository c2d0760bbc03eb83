#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace holdfast::kernels {

/// A digest of bytes that were just written, cheap enough to be formed of every result.
///
/// 32 lanes of h = h * odd + word modulo 2^32: a change of any one word always changes the digest; several changes
/// cancel with probability 2^-32 a lane. It finds members that hold different results; it does not resist an adversary.
/// Determinism: a function of the bytes and of how they are cut into calls, not of the instruction set.
class Digester {
 public:
  void add(std::byte const* data, std::size_t bytes);
  void reset() { *this = Digester(); }
  /// add() by somebody who forms the bytes at the same time: `update` gets the lanes, and adds whole groups of them.
  template <typename Update>
  void fold(std::size_t bytes, Update const& update) {
    update(lanes_.data());
    bytes_ += bytes;
  }
  [[nodiscard]] std::uint64_t value() const;

  static constexpr std::size_t kLanes = 32;
  static constexpr std::uint32_t kMultiplier = 0x9E3779B1U;

 private:
  alignas(64) std::array<std::uint32_t, kLanes> lanes_{};
  std::uint64_t bytes_ = 0;
};

}  // namespace holdfast::kernels
