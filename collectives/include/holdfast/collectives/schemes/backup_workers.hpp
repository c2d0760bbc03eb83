#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include <holdfast/collectives/gradient_spread.hpp>

namespace holdfast {

/// How many of n members to wait for in each step (Xu, Neglia, Sebastianelli: Dynamic Backup Workers, 2020): the k with
/// the greatest expected fall of the loss per second.
///
/// Deterministic: equal observations give equal choices, so all members choose alike from exchanged data.
class BackupWorkers {
 public:
  struct Options {
    double learning_rate = 0.1;
    int byzantine = 0;  ///< f: never fewer than 2 f + 1 are waited for
    std::size_t window = 5;
    /// Whether a choice of k members is allowed, such as the bound of the rule at n = k; empty: all are.
    std::function<bool(int)> is_allowed;
  };

  BackupWorkers(int members, Options options);

  /// After a step that waited for the first `waited` of the arrivals.
  /// @param arrivals  seconds from the start of the step to each row that came, ascending, at least `waited` of them
  /// @param loss      before the step, of all members that were waited for
  void observe(int waited, std::span<double const> arrivals, GradientSpread const& spread, double loss);

  /// For the next step; all members until enough is known.
  [[nodiscard]] int choice() const;
  /// Expected fall of the loss of a step that waits for k, per the last observations.
  [[nodiscard]] double gain(int waited) const;
  /// Expected seconds of a step that waits for k: means of what was seen, made increasing in k.
  [[nodiscard]] double duration(int waited) const;
  /// Of the loss, as consecutive losses tell it: median of the window.
  [[nodiscard]] double smoothness() const;

 private:
  int members_;
  Options options_;
  GradientSpread spread_;
  std::deque<double> smoothness_;
  std::vector<double> seconds_;  // per k: sum of what was seen
  std::vector<double> seen_;     // per k: how often
  double last_loss_ = 0;
  int last_waited_ = 0;
  bool has_observed_ = false;
};

}  // namespace holdfast
