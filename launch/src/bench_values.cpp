#include "bench_values.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace holdfast::launch {
namespace {

// Conversions for the values of this benchmark alone: whole numbers in, any finite number out.
Float16 half_of(int value) {
  if (value == 0) return {0};
  int const exponent = 31 - std::countl_zero(static_cast<std::uint32_t>(value));
  int const fraction = ((value << 10) >> exponent) & 0x3FF;
  return {static_cast<std::uint16_t>(((exponent + 15) << 10) | fraction)};
}

double value_of(Float16 half) {
  int const exponent = (half.bits >> 10) & 0x1F;
  double const fraction = half.bits & 0x3FF;
  double const magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? std::nan("")
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return (half.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <typename T>
T element_of(int value) {
  return static_cast<T>(value);
}
template <>
Float16 element_of<Float16>(int value) {
  return half_of(value);
}
template <>
BFloat16 element_of<BFloat16>(int value) {
  return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16)};
}

template <typename T>
double value_of(T element) {
  return static_cast<double>(element);
}
double value_of(BFloat16 element) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(element.bits) << 16);
}

template <typename Visitor>
auto visit(DType dtype, Visitor const& visitor) {
  switch (dtype) {
    case DType::float64:
      return visitor(double{});
    case DType::float16:
      return visitor(Float16{});
    case DType::bfloat16:
      return visitor(BFloat16{});
    case DType::int32:
      return visitor(std::int32_t{});
    case DType::int64:
      return visitor(std::int64_t{});
    case DType::float32:
      break;
  }
  return visitor(float{});
}

double relative_tolerance(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return 1e-6;
    case DType::float64:
      return 1e-14;
    case DType::float16:
      return 1e-3;
    case DType::bfloat16:
      return 8e-3;
    case DType::int32:
    case DType::int64:
      break;
  }
  return 0;
}

}  // namespace

void fill_bench_values(MutableBuffer buffer, int rank) {
  visit(buffer.dtype(), [&](auto example) {
    using T = decltype(example);
    for (std::size_t i = 0; i < buffer.elements(); ++i) {
      T const element = element_of<T>(bench_value(i, rank));
      std::memcpy(buffer.data() + i * sizeof(T), &element, sizeof(T));
    }
  });
}

std::size_t count_wrong(ConstBuffer result, int ranks, Expected expected) {
  int rank_sum = 0, rank_largest = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    rank_sum += bench_value(0, rank);
    rank_largest = std::max(rank_largest, bench_value(0, rank));
  }
  double const relative = relative_tolerance(result.dtype());
  return visit(result.dtype(), [&](auto example) {
    using T = decltype(example);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < result.elements(); ++i) {
      T element;
      std::memcpy(&element, result.data() + i * sizeof(T), sizeof(T));
      double const value = value_of(element);
      double low = static_cast<double>(ranks) * bench_value(i, 0) + rank_sum;
      if (expected == Expected::mean) low /= ranks;
      double high = low;
      if (expected == Expected::between) {
        low = 0;
        high = bench_value(i, 0) + rank_largest;
      }
      double const tolerance = relative * std::max(high, 1.0);
      bool const is_right = value >= low - tolerance && value <= high + tolerance;  // false for NaN
      wrong += is_right ? 0 : 1;
    }
    return wrong;
  });
}

}  // namespace holdfast::launch
