#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Subsets of {0 .. n-1} in lexicographic order, for rules that look for the best n-f rows.
namespace holdfast::rules {

/// n over k, at most 2^62.
[[nodiscard]] std::uint64_t binomial(int n, int k);

/// Steps to the lexicographically next subset of the same size; false after the last one.
[[nodiscard]] bool next_subset(std::span<int> subset, int n);

/// 0 .. count-1
[[nodiscard]] std::vector<int> first_numbers(int count);

}  // namespace holdfast::rules
