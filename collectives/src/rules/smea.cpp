#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "rules/eigen.hpp"
#include "rules/registry.hpp"
#include "rules/selection.hpp"
#include "rules/subsets.hpp"

namespace holdfast::rules {
namespace {

constexpr std::uint64_t kMostSubsets = 2'000'000;

/// The largest eigenvalue of the covariance of a subset of rows, from squared distances.
class SubsetVariance {
 public:
  SubsetVariance(GramMatrix const& distances, int size)
      : distances_(distances), size_(static_cast<std::size_t>(size)), centred_(size) {}

  /// -1/2 J D J of the subset: the Gram of its rows about their mean.
  void set_subset(std::vector<int> const& subset) {
    row_means_.assign(size_, 0);
    double mean = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      for (std::size_t j = 0; j < size_; ++j) row_means_[i] += distances_(subset[i], subset[j]);
      row_means_[i] /= static_cast<double>(size_);
      mean += row_means_[i];
    }
    mean /= static_cast<double>(size_);
    for (std::size_t i = 0; i < size_; ++i)
      for (std::size_t j = 0; j <= i; ++j) {
        double const value = ((row_means_[i] - distances_(subset[i], subset[j])) + (row_means_[j] - mean)) / 2;
        centred_(static_cast<int>(i), static_cast<int>(j)) = value;
        centred_(static_cast<int>(j), static_cast<int>(i)) = value;
      }
  }

  /// A few steps of the power method from the longest row; no Rayleigh quotient is above the largest eigenvalue.
  [[nodiscard]] bool is_surely_above(double limit) {
    std::size_t longest = 0;
    double trace = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      int const row = static_cast<int>(i);
      trace += centred_(row, row);
      if (centred_(row, row) > centred_(static_cast<int>(longest), static_cast<int>(longest))) longest = i;
    }
    if (trace / static_cast<double>(size_) > limit) return true;
    vector_.resize(size_);
    for (std::size_t i = 0; i < size_; ++i) vector_[i] = centred_(static_cast<int>(i), static_cast<int>(longest));
    constexpr int kSteps = 12;
    for (int step = 0; step < kSteps; ++step) {
      double squared = 0;
      for (double const value : vector_) squared += value * value;
      if (!(squared > 0)) return false;
      double const scale = 1 / std::sqrt(squared);
      for (auto& value : vector_) value *= scale;
      next_.assign(size_, 0);
      double quotient = 0;
      for (std::size_t i = 0; i < size_; ++i) {
        for (std::size_t j = 0; j < size_; ++j)
          next_[i] += centred_(static_cast<int>(i), static_cast<int>(j)) * vector_[j];
        quotient += next_[i] * vector_[i];
      }
      if (quotient > limit) return true;
      std::swap(vector_, next_);
    }
    return false;
  }

  [[nodiscard]] double largest_eigenvalue() const { return symmetric_eigen(centred_).values.front(); }

 private:
  GramMatrix const& distances_;
  std::size_t size_;
  GramMatrix centred_;
  std::vector<double> row_means_;
  std::vector<double> vector_;
  std::vector<double> next_;
};

/// The mean of the n-f rows whose covariance has the least largest eigenvalue, of all subsets.
class SmallestMaximumEigenvalue final : public LinearRule {
 public:
  [[nodiscard]] std::string unmet_demand(int n, int f) const override {
    auto const subsets = binomial(n, f);
    if (subsets <= kMostSubsets) return {};
    return "there are " + std::to_string(subsets) + " subsets of n - f rows, more than " +
           std::to_string(kMostSubsets) + " take too long; use a rule without a search, such as caf";
  }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    // Rounding may lift a bound by this much; whoever is closer is decided by its eigenvalue.
    constexpr double kMargin = 1 + 1e-10;
    // Two variances that differ by less are equal, as those of subsets of equal rows are: the first subset wins.
    constexpr double kEqual = 1e-12;
    int const n = statistics.contributions;
    int const size = n - statistics.byzantine;
    auto const distances = statistics.gram.squared_distances();
    SubsetVariance variance(distances, size);
    auto subset = first_numbers(size);
    std::vector<int> best;
    double least = std::numeric_limits<double>::infinity();
    do {
      variance.set_subset(subset);
      if (variance.is_surely_above(least * kMargin)) continue;
      double const eigenvalue = variance.largest_eigenvalue();
      if (best.empty() || eigenvalue < least * (1 - kEqual)) {
        least = eigenvalue;
        best = subset;
      }
    } while (next_subset(subset, n));
    return std::vector{Combination::mean_of(n, best)};
  }
};

}  // namespace

Entry smea_entry() {
  return {"smea",
          "Allouah, Guerraoui, Gupta, Pinot, Stephan: On the Privacy-Robustness-Utility Trilemma in Distributed "
          "Learning, ICML 2023",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<SmallestMaximumEigenvalue>(); }};
}

}  // namespace holdfast::rules
