#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <holdfast/collectives/dtype.hpp>

namespace holdfast {

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::float32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::float64;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::float16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bfloat16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::int32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::int64;
};

/// Borrowed elements, read only. The memory stays with the caller and must live until the round that uses it has ended.
class ConstBuffer {
 public:
  constexpr ConstBuffer() = default;
  constexpr ConstBuffer(void const* data, std::size_t elements, DType dtype)
      : data_(static_cast<std::byte const*>(data)), elements_(elements), dtype_(dtype) {}
  template <typename T, std::size_t N>
  constexpr ConstBuffer(std::span<T, N> elements)  // NOLINT(google-explicit-constructor): a span is a buffer
      : ConstBuffer(elements.data(), elements.size(), DTypeOf<std::remove_const_t<T>>::value) {}

  [[nodiscard]] constexpr std::byte const* data() const { return data_; }
  [[nodiscard]] constexpr std::size_t elements() const { return elements_; }
  [[nodiscard]] constexpr DType dtype() const { return dtype_; }
  [[nodiscard]] constexpr std::size_t bytes() const { return elements_ * element_bytes(dtype_); }

 private:
  std::byte const* data_ = nullptr;
  std::size_t elements_ = 0;
  DType dtype_ = DType::float32;
};

/// Borrowed elements that a collective writes, only once its round is committed.
class MutableBuffer {
 public:
  constexpr MutableBuffer() = default;
  constexpr MutableBuffer(void* data, std::size_t elements, DType dtype)
      : data_(static_cast<std::byte*>(data)), elements_(elements), dtype_(dtype) {}
  template <typename T, std::size_t N>
  constexpr MutableBuffer(std::span<T, N> elements)  // NOLINT(google-explicit-constructor): a span is a buffer
      : MutableBuffer(elements.data(), elements.size(), DTypeOf<T>::value) {}

  constexpr operator ConstBuffer() const {  // NOLINT(google-explicit-constructor): reading is always allowed
    return ConstBuffer(data_, elements_, dtype_);
  }
  [[nodiscard]] constexpr std::byte* data() const { return data_; }
  [[nodiscard]] constexpr std::size_t elements() const { return elements_; }
  [[nodiscard]] constexpr DType dtype() const { return dtype_; }
  [[nodiscard]] constexpr std::size_t bytes() const { return elements_ * element_bytes(dtype_); }

 private:
  std::byte* data_ = nullptr;
  std::size_t elements_ = 0;
  DType dtype_ = DType::float32;
};

}  // namespace holdfast
