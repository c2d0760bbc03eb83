#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace examples {

/// Labelled square images as they lie in a file of examples/data/prepare.
struct ImageTable {
  std::vector<float> pixels;  ///< [rows][columns], 0 to 1
  std::vector<std::int64_t> labels;
  std::size_t columns = 0;

  [[nodiscard]] std::size_t rows() const { return labels.size(); }
};

/// @throws holdfast::Error not_found or bad_argument naming the file and the line
[[nodiscard]] ImageTable load_image_table(std::filesystem::path const& file);

}  // namespace examples
