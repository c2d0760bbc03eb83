#include <algorithm>
#include <limits>
#include <string>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// The n-f rows whose squared distances add up to the least, found by branch and bound.
///
/// Subsets are visited in lexicographic order. A branch is left when even the cheapest way to fill its subset would
/// cost more than the best subset known: each further row adds at least its distances to the rows already chosen.
class LeastScatter {
 public:
  /// Keeps the time of one decision below seconds; a pure function of the distances, so the same at all members.
  static constexpr std::uint64_t kMostBranches = 20'000'000;
  /// Two sums that differ by less are equal: the order of their terms made the difference, and the first subset wins.
  static constexpr double kEqual = 1e-12;

  LeastScatter(GramMatrix const& distances, int size)
      : distances_(distances), size_(size), to_chosen_(static_cast<std::size_t>(distances.rows()), 0) {
    start_from_neighbours();
    visit(0, 0);
  }

  [[nodiscard]] bool gave_up() const { return branches_ > kMostBranches; }
  [[nodiscard]] std::vector<int> const& best() const { return best_; }

 private:
  /// Any subset bounds the search: the best of the rows with the size-1 rows closest to them.
  void start_from_neighbours() {
    for (int i = 0; i < distances_.rows(); ++i) {
      std::vector<double> from_here;
      for (int j = 0; j < distances_.rows(); ++j) from_here.push_back(distances_(i, j));
      double cost = 0;
      auto const subset = closest(from_here, size_);
      for (std::size_t a = 0; a < subset.size(); ++a) {
        double sum = 0;
        for (std::size_t b = 0; b < a; ++b) sum += distances_(subset[b], subset[a]);
        cost += sum;
      }
      least_ = std::min(least_, cost);
    }
    // The search has to arrive at it again: rounding must not stand in its way.
    least_ += least_ * kEqual;
  }

  void visit(int from, double cost) {
    if (++branches_ > kMostBranches) return;
    int const missing = size_ - static_cast<int>(chosen_.size());
    if (missing == 0) {
      if (!found_ || cost < least_ * (1 - kEqual)) {
        least_ = cost;
        best_ = chosen_;
        found_ = true;
      }
      return;
    }
    int const rows = distances_.rows();
    auto const is_hopeless = [&](double bound) {
      return found_ ? bound * (1 - kEqual) >= least_ : bound * (1 - kEqual) > least_;
    };
    if (cost != 0) {
      std::vector<double> further(to_chosen_.begin() + from, to_chosen_.end());
      std::nth_element(further.begin(), further.begin() + (missing - 1), further.end());
      double bound = cost;
      for (int k = 0; k < missing; ++k) bound += further[static_cast<std::size_t>(k)];
      if (is_hopeless(bound)) return;
    }
    for (int i = from; i <= rows - missing; ++i) {
      double const with = cost + to_chosen_[static_cast<std::size_t>(i)];
      if (is_hopeless(with)) continue;
      auto const before = to_chosen_;
      for (int j = i + 1; j < rows; ++j) to_chosen_[static_cast<std::size_t>(j)] += distances_(i, j);
      chosen_.push_back(i);
      visit(i + 1, with);
      chosen_.pop_back();
      to_chosen_ = before;
    }
  }

  GramMatrix const& distances_;
  int size_;
  std::vector<double> to_chosen_;  ///< of each row: the sum of its distances to the chosen ones
  std::vector<int> chosen_;
  std::vector<int> best_;
  double least_ = std::numeric_limits<double>::infinity();
  bool found_ = false;
  std::uint64_t branches_ = 0;
};

/// The mean of the n-f rows of least variance.
class MinimumVarianceAveraging final : public LinearRule {
 public:
  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    int const n = statistics.contributions;
    auto const distances = statistics.gram.squared_distances();
    LeastScatter const search(distances, n - statistics.byzantine);
    if (search.gave_up())
      return fail(Errc::f_out_of_bounds, "mva: the search among the subsets of n - f rows exceeded " +
                                             std::to_string(LeastScatter::kMostBranches) + " branches; here f = " +
                                             std::to_string(statistics.byzantine) + " and n = " + std::to_string(n) +
                                             "; use a rule without a search, such as caf or nnm+trimmed_mean");
    return std::vector{Combination::mean_of(n, search.best())};
  }
};

}  // namespace

Entry mva_entry() {
  return {"mva", "minimum variance averaging", kLessThanHalf, RuleKind::linear, false, {}, [](Arguments&) {
            return std::unique_ptr<Step>(std::make_unique<MinimumVarianceAveraging>());
          }};
}

}  // namespace holdfast::rules
