#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <holdfast/collectives/buffer.hpp>

/// Elements of any dtype from numbers that each of them holds exactly, so that every result has one right answer.
namespace holdfast::conformance {

inline constexpr DType kAllDTypes[] = {DType::float32,  DType::float64, DType::float16,
                                       DType::bfloat16, DType::int32,   DType::int64};

/// @pre |value| is 0 or a number of at most 8 significant bits between 2^-10 and 2^15
inline std::uint16_t exact_half(double value) {
  if (value == 0) return 0;
  int exponent = 0;
  double const mantissa = std::frexp(std::abs(value), &exponent);  // in [0.5, 1)
  auto const fraction = static_cast<unsigned>(mantissa * 2048) & 1023U;
  return static_cast<std::uint16_t>((value < 0 ? 0x8000U : 0U) | static_cast<unsigned>(exponent + 14) << 10 | fraction);
}
inline double from_half(std::uint16_t bits) {
  int const exponent = bits >> 10 & 31;
  double const fraction = static_cast<double>(bits & 1023U) / 1024;
  double const magnitude = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1 + fraction, exponent - 15);
  return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

/// Memory of a caller: `offset` bytes off any alignment, and guarded on both sides.
class Values {
 public:
  Values(DType dtype, std::size_t elements, std::size_t offset = 0)
      : dtype_(dtype), elements_(elements), offset_(kGuard + offset) {
    memory_.assign(offset_ + elements * element_bytes(dtype) + kGuard, kFiller);
  }

  [[nodiscard]] ConstBuffer in() const { return {data(), elements_, dtype_}; }
  [[nodiscard]] MutableBuffer out() { return {memory_.data() + offset_, elements_, dtype_}; }
  [[nodiscard]] std::size_t elements() const { return elements_; }
  [[nodiscard]] std::vector<std::byte> bytes() const { return {data(), data() + elements_ * element_bytes(dtype_)}; }

  void set(std::size_t index, double value) { write(memory_.data() + offset_, dtype_, index, value); }
  [[nodiscard]] double operator[](std::size_t index) const { return read(data(), dtype_, index); }
  template <typename Function>
  void fill(Function const& function) {
    for (std::size_t index = 0; index < elements_; ++index) set(index, function(index));
  }
  /// Elements that differ from `function(index)`, and guard bytes that were written to.
  template <typename Function>
  [[nodiscard]] std::size_t count_wrong(Function const& function) const {
    std::size_t wrong = 0;
    for (std::size_t index = 0; index < elements_; ++index) wrong += (*this)[index] != function(index) ? 1U : 0U;
    std::size_t const end = offset_ + elements_ * element_bytes(dtype_);
    for (std::size_t index = 0; index < memory_.size(); ++index)
      if ((index < offset_ || index >= end) && memory_[index] != kFiller) ++wrong;
    return wrong;
  }

  static void write(std::byte* data, DType dtype, std::size_t index, double value) {
    switch (dtype) {
      case DType::float32:
        return put(data, index, static_cast<float>(value));
      case DType::float64:
        return put(data, index, value);
      case DType::float16:
        return put(data, index, exact_half(value));
      case DType::bfloat16:
        return put(data, index,
                   static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16));
      case DType::int32:
        return put(data, index, static_cast<std::int32_t>(value));
      case DType::int64:
        return put(data, index, static_cast<std::int64_t>(value));
    }
  }
  [[nodiscard]] static double read(std::byte const* data, DType dtype, std::size_t index) {
    switch (dtype) {
      case DType::float32:
        return static_cast<double>(get<float>(data, index));
      case DType::float64:
        return get<double>(data, index);
      case DType::float16:
        return from_half(get<std::uint16_t>(data, index));
      case DType::bfloat16:
        return static_cast<double>(std::bit_cast<float>(std::uint32_t{get<std::uint16_t>(data, index)} << 16));
      case DType::int32:
        return get<std::int32_t>(data, index);
      case DType::int64:
        return static_cast<double>(get<std::int64_t>(data, index));
    }
    return 0;
  }

 private:
  static constexpr std::size_t kGuard = 64;
  static constexpr std::byte kFiller{0xA5};

  template <typename T>
  static void put(std::byte* data, std::size_t index, T value) {
    std::memcpy(data + index * sizeof value, &value, sizeof value);
  }
  template <typename T>
  static T get(std::byte const* data, std::size_t index) {
    T value;
    std::memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
  }
  [[nodiscard]] std::byte const* data() const { return memory_.data() + offset_; }

  DType dtype_;
  std::size_t elements_;
  std::size_t offset_;
  std::vector<std::byte> memory_;
};

}  // namespace holdfast::conformance
