#pragma once

#include <cstdint>

namespace holdfast::sim {

/// SplitMix64: small, the same everywhere, and any two seeds give unrelated streams.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t word() {
    state_ += 0x9E37'79B9'7F4A'7C15U;
    auto z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58'476D'1CE4'E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D0'49BB'1331'11EBU;
    return z ^ (z >> 31U);
  }
  /// In 0 .. bound - 1.
  std::uint64_t below(std::uint64_t bound) { return word() % bound; }
  /// In first .. last.
  std::int64_t between(std::int64_t first, std::int64_t last) {
    return first + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(last - first + 1)));
  }
  bool chance(std::uint64_t percent) { return below(100) < percent; }

 private:
  std::uint64_t state_;
};

[[nodiscard]] inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  return Random(a * 0x9E37'79B9'7F4A'7C15U ^ b).word();
}

}  // namespace holdfast::sim
