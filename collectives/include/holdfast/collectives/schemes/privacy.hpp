#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace holdfast {

/// Counts how much a run of noisy steps tells about one example (Rényi differential privacy of the sampled Gaussian
/// mechanism: Mironov, Talwar, Zhang, 2019).
///
/// Each step uses every example with probability `sampling_rate`, clips each example's gradient to norm C, and adds
/// Gaussian noise of deviation noise_multiplier * C to their sum. Orders from 1.1 to 512; the conversion to (epsilon,
/// delta) is that of Balle, Barthe, Gaboardi, Hsu, Sato, AISTATS 2020, theorem 21.
class PrivacyAccountant {
 public:
  PrivacyAccountant();

  /// @throws Error bad_argument unless noise_multiplier >= 0 and 0 <= sampling_rate <= 1
  void add_steps(double noise_multiplier, double sampling_rate, std::uint64_t steps);

  /// The least epsilon for this delta; infinite without noise.
  /// @throws Error bad_argument unless 0 < delta < 1
  [[nodiscard]] double epsilon(double delta) const;

 private:
  std::vector<double> orders_;
  std::vector<double> divergence_;  // of each order, summed over the steps
};

/// Sums the gradients of single examples, each clipped to norm `clip`, then adds Gaussian noise.
class PrivateGradient {
 public:
  /// @param seed  names the noise: nobody else may know it, so take it from std::random_device
  PrivateGradient(std::size_t elements, double clip, double noise_multiplier, std::uint64_t seed);

  void add(std::span<float const> example_gradient);
  /// Mean over `examples` of the clipped gradients so far, plus noise of deviation noise_multiplier * clip / examples
  /// in each element; starts anew.
  void take(std::span<float> out, std::uint64_t step, double examples);

 private:
  std::vector<double> sum_;
  double clip_;
  double noise_multiplier_;
  std::uint64_t seed_;
};

}  // namespace holdfast
