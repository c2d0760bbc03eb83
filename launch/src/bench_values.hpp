#pragma once

#include <cstddef>

#include <holdfast/collectives/buffer.hpp>

namespace holdfast::launch {

/// Element i of rank r's contribution: small integers, so that a sum has one right answer in any order.
[[nodiscard]] constexpr int bench_value(std::size_t element, int rank) {
  return static_cast<int>(element % 7) + rank % 4;
}

void fill_bench_values(MutableBuffer buffer, int rank);

/// What a result should be, element by element.
enum class Expected {
  sum,
  mean,
  between,  ///< other rules: finite, and between zero and the largest contribution to that element
};

/// Number of elements of `result` that are not as expected of `ranks` contributions.
[[nodiscard]] std::size_t count_wrong(ConstBuffer result, int ranks, Expected expected);

}  // namespace holdfast::launch
