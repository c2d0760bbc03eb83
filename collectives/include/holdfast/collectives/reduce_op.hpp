#pragma once

#include <string_view>

namespace holdfast {

/// Element-wise reductions over ranks, applied in rank order. Integers wrap on overflow; `average` of integers
/// truncates towards zero. float16 and bfloat16 are reduced in float32 and rounded once.
enum class ReduceOp : unsigned char { sum = 1, average = 2, min = 3, max = 4, product = 5 };

[[nodiscard]] constexpr std::string_view name(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::average:
      return "average";
    case ReduceOp::min:
      return "min";
    case ReduceOp::max:
      return "max";
    case ReduceOp::product:
      return "product";
  }
  return "unknown";
}

}  // namespace holdfast
