#pragma once

#include <cstdint>
#include <span>

namespace holdfast {

/// A directional derivative in one byte and a sign (Zelikman, Huang, Liang, Haber, Goodman: Just One Byte, 2023).
///
/// The byte is 16 ln |g|, rounded half to even: a relative error of at most exp(1/32) - 1 = 3.2 % for |g| in
/// exp(+-7.94), larger values are clipped. The sign is a ninth bit.
struct OneByteScalar {
  std::int8_t power = -128;  ///< -128: zero
  bool is_negative = false;

  [[nodiscard]] static OneByteScalar encode(double value);
  [[nodiscard]] double decode() const;
  /// As it travels: the power in the low 8 bits, the sign in bit 8.
  [[nodiscard]] std::int32_t word() const;
  [[nodiscard]] static OneByteScalar from_word(std::int32_t word);
};

/// The random direction that (seed, step, member, sample) names: element i of N(0, I), the same wherever it is asked
/// for.
class SpsaDirection {
 public:
  SpsaDirection(std::uint64_t seed, std::uint64_t step, std::uint64_t member, std::uint64_t sample);
  /// parameters += factor * direction; `first` is the index of parameters[0] in the whole model.
  void add_to(std::span<float> parameters, double factor, std::uint64_t first = 0) const;

 private:
  std::uint64_t seed_;
  std::uint64_t purpose_;
  std::uint64_t step_;
};

/// (L(w + eps z) - L(w - eps z)) / (2 eps)
[[nodiscard]] double spsa_slope(double loss_above, double loss_below, double eps);

}  // namespace holdfast
