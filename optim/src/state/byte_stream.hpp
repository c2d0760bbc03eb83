#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace holdfast::optim {

/// Numbers, texts and tensors as bytes: equal values give equal bytes in every process, pointers never appear.
/// The same list of fields (a function template over the stream) writes and reads.
class ByteWriter {
 public:
  static constexpr bool kReads = false;

  void operator()(bool value) { word(value ? 1 : 0); }
  void operator()(std::int64_t value) { word(static_cast<std::uint64_t>(value)); }
  void operator()(double value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    word(bits);
  }
  void operator()(std::string const& value);
  /// Undefined tensors are told from empty ones.
  void operator()(at::Tensor const& tensor);
  void operator()(std::tuple<double, double> const& pair) {
    (*this)(std::get<0>(pair));
    (*this)(std::get<1>(pair));
  }
  template <typename T>
  void operator()(std::optional<T> const& value) {
    (*this)(value.has_value());
    if (value) (*this)(*value);
  }
  template <typename T>
  void operator()(std::vector<T> const& list) {
    sequence(list);
  }
  template <typename T>
  void operator()(std::deque<T> const& list) {
    sequence(list);
  }

  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  template <typename List>
  void sequence(List const& list) {
    word(list.size());
    for (auto const& element : list) (*this)(element);
  }
  void word(std::uint64_t value);
  void append(void const* data, std::size_t bytes);

  std::vector<std::byte> bytes_;
};

/// Reads what ByteWriter wrote. Any other bytes make it bad, after which it reads zeros and allocates nothing.
class ByteReader {
 public:
  static constexpr bool kReads = true;

  explicit ByteReader(std::span<std::byte const> bytes) : bytes_(bytes) {}

  void operator()(bool& value);
  void operator()(std::int64_t& value) { value = static_cast<std::int64_t>(word()); }
  void operator()(double& value) {
    auto const bits = word();
    std::memcpy(&value, &bits, sizeof value);
  }
  void operator()(std::string& value);
  void operator()(at::Tensor& tensor);
  void operator()(std::tuple<double, double>& pair) {
    (*this)(std::get<0>(pair));
    (*this)(std::get<1>(pair));
  }
  template <typename T>
  void operator()(std::optional<T>& value) {
    bool has_value = false;
    (*this)(has_value);
    value.reset();
    if (has_value) (*this)(value.emplace());
  }
  template <typename T>
  void operator()(std::vector<T>& list) {
    sequence(list);
  }
  template <typename T>
  void operator()(std::deque<T>& list) {
    sequence(list);
  }

  /// Everything was read and nothing was amiss.
  [[nodiscard]] bool is_done() const { return !is_bad_ && bytes_.empty(); }
  [[nodiscard]] bool is_bad() const { return is_bad_; }
  void fail() { is_bad_ = true; }

 private:
  template <typename List>
  void sequence(List& list) {
    list.clear();
    auto const elements = word();
    // Each element takes a word at least.
    if (elements > bytes_.size() / sizeof(std::uint64_t)) is_bad_ = true;
    for (std::uint64_t i = 0; !is_bad_ && i < elements; ++i) (*this)(list.emplace_back());
  }
  [[nodiscard]] std::uint64_t word();
  [[nodiscard]] std::span<std::byte const> take(std::uint64_t bytes);

  std::span<std::byte const> bytes_;
  bool is_bad_ = false;
};

}  // namespace holdfast::optim
