#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace holdfast {

/// A set of rows, one bit each, as it travels between members: 64-bit words, row r at bit r % 64 of word r / 64.
class RowMask {
 public:
  RowMask() = default;
  explicit RowMask(int rows) : rows_(rows), words_(words_for(rows), 0) {}

  /// The set of all rows.
  [[nodiscard]] static RowMask all(int rows) {
    RowMask mask(rows);
    for (int row = 0; row < rows; ++row) mask.set(row);
    return mask;
  }
  /// From words that came off the wire; bits beyond `rows` are dropped, missing words are empty.
  [[nodiscard]] static RowMask from_words(int rows, std::span<std::uint64_t const> words) {
    RowMask mask(rows);
    for (int row = 0; row < rows; ++row) {
      auto const word = static_cast<std::size_t>(row) / 64;
      if (word < words.size() && ((words[word] >> (row % 64)) & 1U) != 0) mask.set(row);
    }
    return mask;
  }
  [[nodiscard]] static constexpr std::size_t words_for(int rows) { return (static_cast<std::size_t>(rows) + 63) / 64; }

  [[nodiscard]] int rows() const { return rows_; }
  [[nodiscard]] bool test(int row) const { return ((words_[index(row)] >> (row % 64)) & 1U) != 0; }
  void set(int row) { words_[index(row)] |= bit(row); }
  void reset(int row) { words_[index(row)] &= ~bit(row); }
  [[nodiscard]] int count() const {
    int total = 0;
    for (auto const word : words_) total += std::popcount(word);
    return total;
  }
  [[nodiscard]] bool any() const { return count() != 0; }
  [[nodiscard]] std::span<std::uint64_t const> words() const { return words_; }
  /// The rows of the set, ascending.
  [[nodiscard]] std::vector<int> indices() const {
    std::vector<int> result;
    for (int row = 0; row < rows_; ++row)
      if (test(row)) result.push_back(row);
    return result;
  }

  RowMask& operator&=(RowMask const& other) {
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
    return *this;
  }
  RowMask& operator|=(RowMask const& other) {
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
    return *this;
  }
  /// Takes the rows of `other` out of this set.
  RowMask& subtract(RowMask const& other) {
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= ~other.words_[i];
    return *this;
  }
  friend RowMask operator&(RowMask a, RowMask const& b) { return std::move(a &= b); }
  friend RowMask operator|(RowMask a, RowMask const& b) { return std::move(a |= b); }
  friend bool operator==(RowMask const&, RowMask const&) = default;

 private:
  static std::size_t index(int row) { return static_cast<std::size_t>(row) / 64; }
  static std::uint64_t bit(int row) { return std::uint64_t{1} << (row % 64); }

  int rows_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace holdfast
