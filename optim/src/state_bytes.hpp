#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace holdfast::optim {

/// Writes numbers and vectors one after the other, for parts of the training state.
class StateWriter {
 public:
  template <typename Number>
  requires std::is_arithmetic_v<Number>
  void number(Number value) { append(&value, sizeof value); }
  template <typename Number>
  void vector(std::span<Number const> values) {
    number(static_cast<std::uint64_t>(values.size()));
    append(values.data(), values.size_bytes());
  }
  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void append(void const* data, std::size_t bytes) {
    if (bytes == 0) return;
    auto const* const begin = static_cast<std::byte const*>(data);
    bytes_.insert(bytes_.end(), begin, begin + bytes);
  }
  std::vector<std::byte> bytes_;
};

/// Reads them back. Bytes that end too early, or a vector of another size than expected, make it bad for good: it then
/// gives zeros.
class StateReader {
 public:
  explicit StateReader(std::span<std::byte const> bytes) : bytes_(bytes) {}

  template <typename Number>
  requires std::is_arithmetic_v<Number>
  [[nodiscard]] Number number() {
    Number value{};
    copy(&value, sizeof value);
    return value;
  }
  template <typename Number>
  void vector(std::span<Number> values) {
    if (number<std::uint64_t>() != values.size()) return fail();
    copy(values.data(), values.size_bytes());
  }
  /// One of a size that only the bytes know, up to `most` numbers.
  template <typename Number>
  [[nodiscard]] std::vector<Number> vector(std::size_t most) {
    auto const size = number<std::uint64_t>();
    if (size > most || size * sizeof(Number) > bytes_.size()) return fail(), std::vector<Number>();
    std::vector<Number> values(static_cast<std::size_t>(size));
    copy(values.data(), values.size() * sizeof(Number));
    return values;
  }
  /// Everything was there, and nothing is left.
  [[nodiscard]] bool is_complete() const { return is_good_ && bytes_.empty(); }
  [[nodiscard]] bool is_good() const { return is_good_; }

 private:
  void fail() { is_good_ = false; }
  void copy(void* to, std::size_t bytes) {
    if (!is_good_ || bytes > bytes_.size()) return fail();
    if (bytes > 0) std::memcpy(to, bytes_.data(), bytes);
    bytes_ = bytes_.subspan(bytes);
  }
  std::span<std::byte const> bytes_;
  bool is_good_ = true;
};

}  // namespace holdfast::optim
