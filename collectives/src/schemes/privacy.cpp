#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <holdfast/collectives/counter_random.hpp>
#include <holdfast/collectives/schemes/privacy.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::uint64_t kPurpose = 0x64706E6F697365;

double log_add(double a, double b) {
  double const low = std::min(a, b);
  double const high = std::max(a, b);
  return low == -kInfinity ? high : high + std::log1p(std::exp(low - high));
}
/// log(exp(a) - exp(b)) for a >= b
double log_sub(double a, double b) {
  if (b == -kInfinity) return a;
  return a <= b ? -kInfinity : a + std::log1p(-std::exp(b - a));
}

double log_erfc(double x) {
  if (x < 25) return std::log(std::erfc(x));
  // Far out erfc underflows: its asymptotic series.
  double const y = 1 / (x * x);
  return -x * x - std::log(x) - 0.5 * std::log(M_PI) + std::log1p(-y / 2 + 3 * y * y / 4 - 15 * y * y * y / 8);
}

/// log of the alpha-th moment for a whole alpha (Mironov, Talwar, Zhang 2019, section 3.3).
double log_moment_of_integer(double q, double sigma, int alpha) {
  double result = -kInfinity;
  for (int i = 0; i <= alpha; ++i) {
    double const log_binomial = std::lgamma(alpha + 1.0) - std::lgamma(i + 1.0) - std::lgamma(alpha - i + 1.0);
    result = log_add(result, log_binomial + i * std::log(q) + (alpha - i) * std::log1p(-q) +
                                 (static_cast<double>(i) * i - i) / (2 * sigma * sigma));
  }
  return result;
}

/// The same for any alpha: two series of binomials, whose terms alternate in sign once i > alpha.
double log_moment_of_fraction(double q, double sigma, double alpha) {
  double const z0 = sigma * sigma * std::log(1 / q - 1) + 0.5;
  double positive = -kInfinity;
  double negative = -kInfinity;
  double log_binomial = 0;  // of |binomial(alpha, i)|
  bool is_positive = true;
  for (int i = 0; i < 100'000; ++i) {
    double const j = alpha - i;
    double const t0 = log_binomial + i * std::log(q) + j * std::log1p(-q);
    double const t1 = log_binomial + j * std::log(q) + i * std::log1p(-q);
    double const e0 = std::log(0.5) + log_erfc((i - z0) / (std::sqrt(2.0) * sigma));
    double const e1 = std::log(0.5) + log_erfc((z0 - j) / (std::sqrt(2.0) * sigma));
    double const s0 = t0 + (static_cast<double>(i) * i - i) / (2 * sigma * sigma) + e0;
    double const s1 = t1 + (j * j - j) / (2 * sigma * sigma) + e1;
    auto& sum = is_positive ? positive : negative;
    sum = log_add(log_add(sum, s0), s1);
    if (std::max(s0, s1) < -30 && i > alpha) break;
    double const next = (alpha - i) / (i + 1);
    if (next < 0) is_positive = !is_positive;
    log_binomial += std::log(std::abs(next));
  }
  return log_sub(positive, negative);
}

double divergence(double q, double sigma, double alpha) {
  if (q == 0) return 0;
  if (sigma == 0) return kInfinity;
  if (q == 1) return alpha / (2 * sigma * sigma);
  bool const is_whole = alpha == std::floor(alpha);
  double const log_moment =
      is_whole ? log_moment_of_integer(q, sigma, static_cast<int>(alpha)) : log_moment_of_fraction(q, sigma, alpha);
  return log_moment / (alpha - 1);
}

}  // namespace

PrivacyAccountant::PrivacyAccountant() {
  for (int tenths = 11; tenths < 110; ++tenths) orders_.push_back(tenths / 10.0);
  for (int order = 11; order <= 64; ++order) orders_.push_back(order);
  for (double const order : {80, 96, 128, 192, 256, 384, 512}) orders_.push_back(order);
  divergence_.assign(orders_.size(), 0);
}

void PrivacyAccountant::add_steps(double noise_multiplier, double sampling_rate, std::uint64_t steps) {
  if (!(noise_multiplier >= 0) || !(sampling_rate >= 0 && sampling_rate <= 1))
    throw Error(Errc::bad_argument, "noise multiplier " + std::to_string(noise_multiplier) +
                                        " must be at least 0 and sampling rate " + std::to_string(sampling_rate) +
                                        " from 0 to 1");
  if (steps == 0) return;
  for (std::size_t i = 0; i < orders_.size(); ++i)
    divergence_[i] += static_cast<double>(steps) * divergence(sampling_rate, noise_multiplier, orders_[i]);
}

double PrivacyAccountant::epsilon(double delta) const {
  if (!(delta > 0 && delta < 1))
    throw Error(Errc::bad_argument, "delta " + std::to_string(delta) + " must be above 0 and below 1");
  double least = kInfinity;
  for (std::size_t i = 0; i < orders_.size(); ++i) {
    double const alpha = orders_[i];
    double const epsilon = divergence_[i] - (std::log(delta) + std::log(alpha)) / (alpha - 1) + std::log1p(-1 / alpha);
    if (!std::isnan(epsilon)) least = std::min(least, std::max(epsilon, 0.0));
  }
  return least;
}

PrivateGradient::PrivateGradient(std::size_t elements, double clip, double noise_multiplier, std::uint64_t seed)
    : sum_(elements, 0), clip_(clip), noise_multiplier_(noise_multiplier), seed_(seed) {
  if (!(clip > 0) || !(noise_multiplier >= 0))
    throw Error(Errc::bad_argument, "clip " + std::to_string(clip) + " must be above 0 and noise multiplier " +
                                        std::to_string(noise_multiplier) + " at least 0");
}

void PrivateGradient::add(std::span<float const> example_gradient) {
  if (example_gradient.size() != sum_.size())
    throw Error(Errc::bad_argument, "a gradient of " + std::to_string(example_gradient.size()) +
                                        " elements where there were " + std::to_string(sum_.size()));
  double squared = 0;
  for (float const value : example_gradient) squared += static_cast<double>(value) * static_cast<double>(value);
  // An example whose gradient is not finite counts for nothing: it must not reveal itself.
  if (!std::isfinite(squared)) return;
  double const norm = std::sqrt(squared);
  double const shrink = norm <= clip_ ? 1 : clip_ / norm;
  for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] += shrink * static_cast<double>(example_gradient[i]);
}

void PrivateGradient::take(std::span<float> out, std::uint64_t step, double examples) {
  CounterRandom const random(seed_, kPurpose, step);
  for (std::size_t i = 0; i < sum_.size(); ++i)
    out[i] = static_cast<float>((sum_[i] + noise_multiplier_ * clip_ * random.normal(i)) / examples);
  std::fill(sum_.begin(), sum_.end(), 0);
}

}  // namespace holdfast
