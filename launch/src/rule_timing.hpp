#pragma once

#include <cstddef>
#include <vector>

#include <holdfast/collectives/rule.hpp>

namespace holdfast::launch {

struct RuleTimingOptions {
  int members = 16;
  std::size_t elements = 1'000'000;
  int byzantine = 3;
  double seconds = 0.5;  ///< of measuring each rule
};

struct RuleTiming {
  double median_s = 0;
  double min_s = 0;
  double max_s = 0;
  int iterations = 0;
};

/// Times rules on float32 rows of normal numbers, in this thread.
class RuleTimer {
 public:
  explicit RuleTimer(RuleTimingOptions const& options);
  /// @throws Error when the rule fails on these rows
  [[nodiscard]] RuleTiming time(Rule const& rule);

 private:
  double run_once(Rule const& rule);

  RuleTimingOptions options_;
  std::vector<std::vector<float>> rows_;
  std::vector<float> result_;
};

}  // namespace holdfast::launch
