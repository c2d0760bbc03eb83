#include <algorithm>
#include <array>
#include <limits>

#include <holdfast/collectives/diloco/schedule.hpp>
#include <holdfast/runtime/error.hpp>

#include "diloco/words.hpp"

namespace holdfast::diloco {

Spacing parse_spacing(std::string_view word) {
  constexpr std::array kWords{Word{"paper", Spacing::paper}, Word{"exact", Spacing::exact}};
  return parse_word<Spacing>("spacing", word, kWords);
}

Schedule::Schedule(std::int64_t inner_steps, int fragments, Spacing spacing)
    : inner_steps_(inner_steps), fragments_(fragments), spacing_(spacing) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (inner_steps < 1 || inner_steps > kMost)
    throw Error(Errc::bad_argument,
                "inner steps: " + std::to_string(inner_steps) + " must be from 1 to " + std::to_string(kMost));
  if (fragments < 1) throw Error(Errc::bad_argument, "fragments: " + std::to_string(fragments) + " must be at least 1");
  std::int64_t const count = fragments;
  if (spacing == Spacing::paper) gap_ = std::max<std::int64_t>(1, (2 * inner_steps + count - 1) / (2 * count));
  period_ = spacing == Spacing::paper ? gap_ * count : inner_steps;
}

std::int64_t Schedule::offset(int fragment) const {
  if (fragment < 0 || fragment >= fragments_)
    throw Error(Errc::bad_argument, "fragment " + std::to_string(fragment) + " of " + std::to_string(fragments_));
  return spacing_ == Spacing::paper ? gap_ * fragment : fragment * inner_steps_ / fragments_;
}

bool Schedule::starts(int fragment, std::int64_t step, std::int64_t joined) const {
  std::int64_t const first = offset(fragment);
  return step - std::max(first, joined) >= period_ && (step - first) % period_ == 0;
}

std::vector<int> Schedule::starting(std::int64_t step, std::int64_t joined) const {
  std::vector<int> result;
  for (int fragment = 0; fragment < fragments_; ++fragment)
    if (starts(fragment, step, joined)) result.push_back(fragment);
  return result;
}

void Schedule::require_overlap(std::int64_t overlap) const {
  if (overlap >= 0 && overlap < period_) return;
  throw Error(Errc::bad_argument,
              "overlap: " + std::to_string(overlap) + " must be from 0 to " + std::to_string(period_ - 1) +
                  ": a fragment is applied before it is exchanged again, " + std::to_string(period_) +
                  " steps later (" + std::to_string(inner_steps_) + " inner steps, " + std::to_string(fragments_) +
                  " fragments, spacing " + (spacing_ == Spacing::paper ? "paper" : "exact") + ")");
}

int Schedule::max_in_flight(std::int64_t overlap, std::int64_t steps) const {
  require_overlap(overlap);
  // An exchange without overlap is on its way during the step at which it starts.
  std::int64_t const lasts = std::max<std::int64_t>(overlap, 1);
  std::vector<std::int64_t> ends;
  std::size_t most = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    std::erase_if(ends, [=](std::int64_t end) { return end <= step; });
    ends.insert(ends.end(), starting(step).size(), step + lasts);
    most = std::max(most, ends.size());
  }
  return static_cast<int>(most);
}

std::string Schedule::warning() const {
  if (period_ == inner_steps_) return {};
  return "each fragment is exchanged every " + std::to_string(period_) + " steps, not every " +
         std::to_string(inner_steps_) + ": " + std::to_string(fragments_) + " fragments are " + std::to_string(gap_) +
         " whole steps apart; spacing exact keeps " + std::to_string(inner_steps_);
}

}  // namespace holdfast::diloco
