#pragma once

#include <cstdint>
#include <filesystem>

#include <torch/types.h>

namespace examples {

/// Square grey images with labels: the first floor(0.8 n) rows of a file train, the rest test.
struct Images {
  torch::Tensor train_pixels;  ///< [rows, side * side], float32, 0..1
  torch::Tensor train_labels;  ///< [rows], int64
  torch::Tensor test_pixels;
  torch::Tensor test_labels;
  std::int64_t side = 0;
  std::int64_t classes = 0;  ///< largest label + 1
};

/// Reads CSV without header (label, pixels) or the binary form of examples/data/prepare, told apart by their first
/// bytes.
/// @throws holdfast::Error not_found saying what makes the file; bad_argument naming the row that is not an image
Images load_images(std::filesystem::path const& file);

}  // namespace examples
