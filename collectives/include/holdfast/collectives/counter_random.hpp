#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace holdfast {

/// Random numbers without state: number `index` of the stream that (seed, purpose, step) names. Whoever knows the names
/// can compute any of them, in any order.
class CounterRandom {
 public:
  CounterRandom(std::uint64_t seed, std::uint64_t purpose, std::uint64_t step)
      : key_(mix(mix(mix(seed) ^ purpose) ^ step)) {}

  [[nodiscard]] std::uint64_t bits(std::uint64_t index) const { return mix(key_ ^ mix(index)); }
  /// In [0, 1), 53 random bits.
  [[nodiscard]] double uniform(std::uint64_t index) const { return static_cast<double>(bits(index) >> 11U) * 0x1p-53; }
  /// Standard normal (Box and Muller); uses numbers 2 index and 2 index + 1.
  [[nodiscard]] double normal(std::uint64_t index) const {
    double const radius = std::sqrt(-2 * std::log(1 - uniform(2 * index)));
    return radius * std::cos(2 * std::numbers::pi * uniform(2 * index + 1));
  }

 private:
  /// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
  static std::uint64_t mix(std::uint64_t z) {
    z += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

  std::uint64_t key_;
};

}  // namespace holdfast
