#include <algorithm>
#include <cmath>
#include <limits>

#include "rules/eigen.hpp"
#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Covariance-bound agnostic filter: rows that stand out along the direction of greatest variance lose weight, until
/// n-2f is left; of the weighted means on the way the one with the least variance is the result.
///
/// Each round sets the weight of at least one row to exactly 0, so there are at most 2f rounds.
class Caf final : public LinearRule {
 public:
  /// Below this part of the longest live row's squared length a variance is rounding noise.
  static constexpr double kNoVariance = 1e-15;

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    auto const n = static_cast<std::size_t>(statistics.contributions);
    std::vector<int> everyone;
    for (int row = 0; row < statistics.contributions; ++row) everyone.push_back(row);
    if (statistics.byzantine == 0) return std::vector{Combination::mean_of(statistics.contributions, everyone)};

    double const enough = static_cast<double>(statistics.contributions - 2 * statistics.byzantine);
    std::vector<double> weights(n, 1);
    std::vector<double> kept(n, 1.0 / static_cast<double>(n));
    double least_variance = std::numeric_limits<double>::infinity();
    while (true) {
      double total = 0;
      for (double const weight : weights) total += weight;
      if (!(total > enough)) break;
      std::vector<double> share(n);
      for (std::size_t i = 0; i < n; ++i) share[i] = weights[i] / total;

      auto const [variance, squared] = spread_along_top_direction(statistics.gram, share);
      if (variance < least_variance) {
        least_variance = variance;
        kept = share;
      }
      double longest = 0;
      double farthest = 0;
      for (std::size_t i = 0; i < n; ++i) {
        if (weights[i] == 0) continue;
        longest = std::max(longest, statistics.gram(static_cast<int>(i), static_cast<int>(i)));
        farthest = std::max(farthest, squared[i]);
      }
      if (variance <= kNoVariance * longest || farthest == 0) break;
      for (std::size_t i = 0; i < n; ++i)
        if (weights[i] > 0) weights[i] *= std::max(1 - squared[i] / farthest, 0.0);
    }
    return std::vector{Combination::of(std::move(kept))};
  }

 private:
  struct Spread {
    double variance;              ///< top eigenvalue of the weighted covariance
    std::vector<double> squared;  ///< ((x_i - mean) . direction)^2
  };

  static Spread spread_along_top_direction(GramMatrix const& gram, std::vector<double> const& share) {
    auto const n = share.size();
    std::vector<int> live;
    for (std::size_t i = 0; i < n; ++i)
      if (share[i] > 0) live.push_back(static_cast<int>(i));
    auto const of = [&](std::vector<double> const& values, int index) {
      return values[static_cast<std::size_t>(live[static_cast<std::size_t>(index)])];
    };
    int const rows = static_cast<int>(live.size());

    // Inner products relative to a live row keep their digits when all rows share a large part; then about the mean.
    // A row of middle length is neither zero nor huge.
    std::vector<double> lengths;
    for (int const row : live) lengths.push_back(gram(row, row));
    int const r = live[static_cast<std::size_t>(order(lengths)[live.size() / 2])];
    GramMatrix centred(rows);
    std::vector<double> to_mean(live.size(), 0);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < rows; ++j) {
        int const a = live[static_cast<std::size_t>(i)];
        int const b = live[static_cast<std::size_t>(j)];
        centred(i, j) = (gram(a, b) - gram(a, r)) - (gram(r, b) - gram(r, r));
        to_mean[static_cast<std::size_t>(i)] += centred(i, j) * of(share, j);
      }
    double mean_squared = 0;
    for (int i = 0; i < rows; ++i) mean_squared += to_mean[static_cast<std::size_t>(i)] * of(share, i);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < rows; ++j)
        centred(i, j) =
            centred(i, j) - to_mean[static_cast<std::size_t>(i)] - to_mean[static_cast<std::size_t>(j)] + mean_squared;

    GramMatrix weighted(rows);
    for (int i = 0; i < rows; ++i)
      for (int j = i; j < rows; ++j)
        weighted(i, j) = weighted(j, i) = std::sqrt(of(share, i)) * std::sqrt(of(share, j)) * centred(i, j);
    auto const eigen = symmetric_eigen(weighted);

    Spread spread{std::max(eigen.values.front(), 0.0), std::vector<double>(n, 0)};
    if (spread.variance == 0) return spread;
    for (int i = 0; i < rows; ++i) {
      double projection = 0;
      for (int j = 0; j < rows; ++j)
        projection += centred(i, j) * std::sqrt(of(share, j)) * eigen.vectors.front()[static_cast<std::size_t>(j)];
      projection /= std::sqrt(spread.variance);
      spread.squared[static_cast<std::size_t>(live[static_cast<std::size_t>(i)])] = projection * projection;
    }
    return spread;
  }
};

}  // namespace

Entry caf_entry() {
  return {"caf",
          "Allouah, Guerraoui, Stephan: Towards Trustworthy Federated Learning with Untrusted Participants, 2025",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<Caf>(); }};
}

}  // namespace holdfast::rules
