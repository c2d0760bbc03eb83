#include "rules/subsets.hpp"

#include <algorithm>
#include <numeric>

namespace holdfast::rules {

std::uint64_t binomial(int n, int k) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62U;
  k = std::min(k, n - k);
  if (k < 0) return 0;
  std::uint64_t result = 1;
  for (int i = 1; i <= k; ++i) {
    auto const factor = static_cast<std::uint64_t>(n - k + i);
    if (result > kMost / factor) return kMost;
    result = result * factor / static_cast<std::uint64_t>(i);
  }
  return result;
}

bool next_subset(std::span<int> subset, int n) {
  int const size = static_cast<int>(subset.size());
  int position = size - 1;
  while (position >= 0 && subset[static_cast<std::size_t>(position)] == n - size + position) --position;
  if (position < 0) return false;
  int value = subset[static_cast<std::size_t>(position)];
  for (; position < size; ++position) subset[static_cast<std::size_t>(position)] = ++value;
  return true;
}

std::vector<int> first_numbers(int count) {
  std::vector<int> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace holdfast::rules
