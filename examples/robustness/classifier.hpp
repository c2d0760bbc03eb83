#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "../common/image_table.hpp"

namespace robustness {

/// 64-32-10 with ReLU and mean cross-entropy, as one flat vector of parameters: W1 by rows, b1, W2 by rows, b2.
class Classifier {
 public:
  static constexpr std::size_t kPixels = 64;
  static constexpr std::size_t kHidden = 32;
  static constexpr std::size_t kClasses = 10;
  static constexpr std::size_t kParameters = kPixels * kHidden + kHidden + kHidden * kClasses + kClasses;

  /// The first floor(0.8 n) images train, the others test.
  /// @throws holdfast::Error bad_argument unless the images are 8x8 digits
  explicit Classifier(examples::ImageTable table);

  [[nodiscard]] std::span<std::int64_t const> train_labels() const {
    return std::span(table_.labels).first(train_rows_);
  }
  [[nodiscard]] std::vector<float> start(std::uint64_t seed) const;
  /// Of the mean loss over the given training rows.
  void gradient(std::span<float const> parameters, std::span<std::int64_t const> rows, bool flips_labels,
                std::span<float> out) const;
  /// Percentage of test images that are recognised; 0 if a parameter is not finite.
  [[nodiscard]] double accuracy(std::span<float const> parameters) const;

 private:
  examples::ImageTable table_;
  std::size_t train_rows_;
};

}  // namespace robustness
