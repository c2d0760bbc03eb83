#include <algorithm>
#include <cmath>
#include <string>

#include <holdfast/collectives/schemes/shard_shares.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

std::vector<double> known_bandwidths(std::span<std::optional<double> const> bandwidths) {
  double total = 0;
  int known = 0;
  for (auto const& bandwidth : bandwidths) {
    if (!bandwidth) continue;
    if (!(*bandwidth >= 0) || !std::isfinite(*bandwidth))
      throw Error(Errc::bad_argument, "a bandwidth of " + std::to_string(*bandwidth) +
                                          " is no number of at least 0; leave it out if unknown");
    total += *bandwidth;
    ++known;
  }
  if (total == 0) throw Error(Errc::bad_argument, "no member has a known bandwidth above 0; use equal shards");
  std::vector<double> result;
  for (auto const& bandwidth : bandwidths) result.push_back(bandwidth.value_or(total / known));
  return result;
}

std::vector<double> shares_at(double level, std::vector<double> const& bandwidths) {
  auto const others = static_cast<double>(bandwidths.size()) - 2;
  std::vector<double> shares;
  for (double const b : bandwidths) shares.push_back(b > 0 ? std::clamp((level * b - 1) / others, 0.0, 1.0) : 0);
  return shares;
}

double sum(std::vector<double> const& values) {
  double total = 0;
  for (double const value : values) total += value;
  return total;
}

}  // namespace

std::vector<double> shard_shares(std::span<std::optional<double> const> given) {
  auto const bandwidths = known_bandwidths(given);
  std::vector<double> shares;
  if (bandwidths.size() <= 2) {
    for (double const b : bandwidths) shares.push_back(b > 0 ? 1 : 0);
  } else {
    double low = 0;
    double high = 0;
    for (double const b : bandwidths) {
      if (b == 0) continue;
      low = std::max(low, 1 / b);
      high = std::max(high, (static_cast<double>(bandwidths.size()) - 1) / b);  // every share is 1 at this level
    }
    if (sum(shares_at(low, bandwidths)) < 1) {
      for (int step = 0; step < 200; ++step) {
        double const middle = low + (high - low) / 2;
        (sum(shares_at(middle, bandwidths)) < 1 ? low : high) = middle;
      }
    } else {
      high = low;
    }
    shares = shares_at(high, bandwidths);
  }
  double const total = sum(shares);
  for (auto& share : shares) share /= total;
  return shares;
}

double shard_time(std::span<double const> bandwidths, std::span<double const> shares) {
  double longest = 0;
  for (std::size_t i = 0; i < bandwidths.size(); ++i)
    if (bandwidths[i] > 0)
      longest = std::max(longest, (1 + (static_cast<double>(bandwidths.size()) - 2) * shares[i]) / bandwidths[i]);
  return longest;
}

std::vector<std::uint64_t> shard_parts(std::uint64_t elements, std::span<double const> shares) {
  std::vector<std::uint64_t> parts;
  std::uint64_t given = 0;
  for (double const share : shares) {
    auto const whole = static_cast<std::uint64_t>(std::floor(static_cast<double>(elements) * share + 1e-9));
    parts.push_back(std::min(whole, elements - given));
    given += parts.back();
  }
  for (; given < elements; ++given) {
    std::size_t neediest = 0;
    auto const need = [&](std::size_t i) { return shares[i] / static_cast<double>(parts[i] + 1); };
    for (std::size_t i = 1; i < shares.size(); ++i)
      if (need(i) > need(neediest)) neediest = i;
    ++parts[neediest];
  }
  return parts;
}

}  // namespace holdfast
