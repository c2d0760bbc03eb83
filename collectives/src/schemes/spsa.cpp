#include <algorithm>
#include <cmath>

#include <holdfast/collectives/counter_random.hpp>
#include <holdfast/collectives/schemes/spsa.hpp>

namespace holdfast {
namespace {

constexpr double kStepsPerPower = 16;
constexpr std::uint64_t kPurpose = 0x53505341;

/// To the nearest whole number, halves to the even one, whatever rounding mode is set.
double round_half_even(double value) {
  double const down = std::floor(value);
  double const above = value - down;
  bool const is_odd = std::fmod(down, 2) != 0;
  return above > 0.5 || (above == 0.5 && is_odd) ? down + 1 : down;
}

}  // namespace

OneByteScalar OneByteScalar::encode(double value) {
  OneByteScalar result;
  if (value == 0 || std::isnan(value)) return result;
  result.is_negative = value < 0;
  double const power = round_half_even(kStepsPerPower * std::log(std::abs(value)));
  result.power = static_cast<std::int8_t>(std::clamp(power, -127.0, 127.0));
  return result;
}

double OneByteScalar::decode() const {
  if (power == -128) return 0;
  double const size = std::exp(power / kStepsPerPower);
  return is_negative ? -size : size;
}

std::int32_t OneByteScalar::word() const {
  return static_cast<std::int32_t>(static_cast<std::uint8_t>(power)) | (is_negative ? 0x100 : 0);
}

OneByteScalar OneByteScalar::from_word(std::int32_t word) {
  return {static_cast<std::int8_t>(static_cast<std::uint8_t>(word & 0xFF)), (word & 0x100) != 0};
}

SpsaDirection::SpsaDirection(std::uint64_t seed, std::uint64_t step, std::uint64_t member, std::uint64_t sample)
    : seed_(seed), purpose_(kPurpose + (member << 32U) + (sample << 8U)), step_(step) {}

void SpsaDirection::add_to(std::span<float> parameters, double factor, std::uint64_t first) const {
  CounterRandom const random(seed_, purpose_, step_);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    parameters[i] += static_cast<float>(factor * random.normal(first + i));
}

double spsa_slope(double loss_above, double loss_below, double eps) {
  return (loss_above - loss_below) / (2 * eps);
}

}  // namespace holdfast
