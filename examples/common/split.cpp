#include "split.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <random>

#include <holdfast/runtime/error.hpp>

namespace examples {

Split Split::parse(std::string const& text) {
  std::string const prefix = "dirichlet:";
  if (text == "iid") return {};
  if (text.starts_with(prefix)) {
    Split split;
    auto const* const end = text.data() + text.size();
    auto const [rest, error] = std::from_chars(text.data() + prefix.size(), end, split.alpha);
    if (error == std::errc() && rest == end && split.alpha > 0 && split.alpha < 1e6) return split;
  }
  throw holdfast::Error(
      holdfast::Errc::bad_argument,
      "unknown split '" + text + "'; valid: iid, dirichlet:ALPHA with ALPHA > 0, as in dirichlet:1.0");
}

std::vector<std::vector<std::int64_t>> Split::divide(std::span<std::int64_t const> labels, int shares,
                                                     std::uint64_t seed) const {
  std::mt19937_64 random(2000 + seed);
  auto const rows = static_cast<std::int64_t>(labels.size());
  std::vector<std::vector<std::int64_t>> divided(static_cast<std::size_t>(shares));
  // Cuts `taken` where the running sums of `weights`, which add up to 1, fall.
  auto const cut = [&](std::vector<std::int64_t>& taken, std::vector<double> const& weights) {
    std::shuffle(taken.begin(), taken.end(), random);
    double sum = 0;
    std::size_t begin = 0;
    for (std::size_t share = 0; share < divided.size(); ++share) {
      sum += weights[share];
      auto const end = share + 1 == divided.size()
                           ? taken.size()
                           : std::min(taken.size(), static_cast<std::size_t>(sum * static_cast<double>(taken.size())));
      for (; begin < end; ++begin) divided[share].push_back(taken[begin]);
    }
  };
  if (alpha == 0) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(rows));
    std::iota(all.begin(), all.end(), std::int64_t{0});
    cut(all, std::vector<double>(divided.size(), 1.0 / shares));
  } else {
    std::map<std::int64_t, std::vector<std::int64_t>> classes;
    for (std::int64_t row = 0; row < rows; ++row) classes[labels[static_cast<std::size_t>(row)]].push_back(row);
    std::gamma_distribution<double> gamma(alpha, 1.0);
    for (auto& [ignored, taken] : classes) {
      std::vector<double> weights(divided.size());
      for (auto& weight : weights) weight = std::max(gamma(random), 1e-300);
      double const sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (auto& weight : weights) weight /= sum;
      cut(taken, weights);
    }
  }
  for (auto& share : divided)
    if (share.empty()) share.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(rows)));
  return divided;
}

}  // namespace examples
