#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace holdfast {

/// Element types of collectives. The numbers travel between members: never reuse one.
enum class DType : std::uint8_t { float32 = 1, float64 = 2, float16 = 3, bfloat16 = 4, int32 = 5, int64 = 6 };

[[nodiscard]] constexpr std::size_t element_bytes(DType dtype) {
  switch (dtype) {
    case DType::float16:
    case DType::bfloat16:
      return 2;
    case DType::float32:
    case DType::int32:
      return 4;
    case DType::float64:
    case DType::int64:
      return 8;
  }
  return 0;
}

[[nodiscard]] constexpr bool is_floating_point(DType dtype) {
  return dtype != DType::int32 && dtype != DType::int64;
}

[[nodiscard]] constexpr std::string_view name(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::float16:
      return "float16";
    case DType::bfloat16:
      return "bfloat16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
  }
  return "unknown";
}

/// Storage of one IEEE half or bfloat16 element; arithmetic happens in float32.
struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

}  // namespace holdfast
