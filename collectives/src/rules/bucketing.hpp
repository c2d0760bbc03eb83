#pragma once

#include <span>
#include <vector>

#include "rules/decision.hpp"

namespace holdfast::rules {

/// The means of consecutive groups of `size` rows of a permutation; the last group may be short.
[[nodiscard]] std::vector<Combination> bucket_means(std::span<int const> permutation, int size);

}  // namespace holdfast::rules
