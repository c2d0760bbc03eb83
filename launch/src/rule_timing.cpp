#include "rule_timing.hpp"

#include <algorithm>
#include <chrono>

#include <holdfast/collectives/counter_random.hpp>
#include <holdfast/collectives/local_aggregation.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {

RuleTimer::RuleTimer(RuleTimingOptions const& options) : options_(options), result_(options.elements) {
  // A thousand different numbers a row are enough: no rule is quicker or slower for seeing them again.
  constexpr std::size_t kPeriod = 1009;
  for (int member = 0; member < options.members; ++member) {
    CounterRandom const random(1, static_cast<std::uint64_t>(member), 0);
    std::vector<float> period;
    for (std::size_t i = 0; i < kPeriod; ++i) period.push_back(static_cast<float>(random.normal(i)));
    auto& row = rows_.emplace_back(options.elements);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = period[(i + static_cast<std::size_t>(member) * 7) % kPeriod];
  }
}

double RuleTimer::run_once(Rule const& rule) {
  std::vector<ConstBuffer> buffers;
  for (auto const& row : rows_) buffers.emplace_back(std::span<float const>(row));
  LocalAggregationOptions options;
  options.byzantine = options_.byzantine;
  auto const start = std::chrono::steady_clock::now();
  auto const done = aggregate_rows(rule, buffers, std::span<float>(result_), options);
  auto const end = std::chrono::steady_clock::now();
  if (!done) throw Error(done.error().code, done.error().message());
  return std::chrono::duration<double>(end - start).count();
}

RuleTiming RuleTimer::time(Rule const& rule) {
  constexpr std::size_t kLeast = 3;
  constexpr std::size_t kMost = 1000;
  (void)run_once(rule);
  std::vector<double> seconds;
  double total = 0;
  while (seconds.size() < kLeast || (total < options_.seconds && seconds.size() < kMost)) {
    seconds.push_back(run_once(rule));
    total += seconds.back();
  }
  std::sort(seconds.begin(), seconds.end());
  auto const n = seconds.size();
  return {n % 2 == 1 ? seconds[n / 2] : (seconds[n / 2 - 1] + seconds[n / 2]) / 2, seconds.front(), seconds.back(),
          static_cast<int>(n)};
}

}  // namespace holdfast::launch
