#include "images.hpp"

#include <cmath>
#include <string>

#include <ATen/ops/tensor.h>

#include <holdfast/runtime/error.hpp>

#include "image_table.hpp"

namespace examples {

using holdfast::Errc;
using holdfast::Error;

Images load_images(std::filesystem::path const& file) {
  auto const table = load_image_table(file);
  auto const rows = static_cast<std::int64_t>(table.labels.size());
  auto const columns = static_cast<std::int64_t>(table.columns);
  Images images;
  images.side = std::llround(std::sqrt(static_cast<double>(columns)));
  if (columns < 1 || images.side * images.side != columns)
    throw Error(Errc::bad_argument, file.string() + ": " + std::to_string(columns) + " pixels make no square image");
  if (rows < 2) throw Error(Errc::bad_argument, file.string() + " has too few rows to train and test on");
  auto const pixels = at::tensor(table.pixels).view({rows, columns});
  auto const labels = at::tensor(table.labels, at::kLong);
  if (!pixels.isfinite().all().item<bool>()) throw Error(Errc::bad_argument, file.string() + " has non-finite pixels");
  auto const train = static_cast<std::int64_t>(std::floor(0.8 * static_cast<double>(rows)));
  images.classes = labels.max().item<std::int64_t>() + 1;
  images.train_pixels = pixels.narrow(0, 0, train);
  images.train_labels = labels.narrow(0, 0, train);
  images.test_pixels = pixels.narrow(0, train, rows - train);
  images.test_labels = labels.narrow(0, train, rows - train);
  return images;
}

}  // namespace examples
