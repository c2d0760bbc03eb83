#include "image_table.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include <holdfast/runtime/error.hpp>

namespace examples {
namespace {

using holdfast::Errc;
using holdfast::Error;

constexpr std::string_view kMagic = "HFDATA1\n";
static_assert(std::endian::native == std::endian::little, "the binary form is read as it lies in the file");

ImageTable parse_binary(std::string_view bytes, std::string const& name) {
  std::uint32_t rows = 0, columns = 0;
  if (bytes.size() < kMagic.size() + 8) throw Error(Errc::bad_argument, name + " ends within its header");
  std::memcpy(&rows, bytes.data() + kMagic.size(), 4);
  std::memcpy(&columns, bytes.data() + kMagic.size() + 4, 4);
  bytes.remove_prefix(kMagic.size() + 8);
  std::size_t const row_bytes = 1 + std::size_t{columns} * sizeof(float);
  if (bytes.size() / row_bytes != rows || bytes.size() % row_bytes != 0)
    throw Error(Errc::bad_argument, name + " announces " + std::to_string(rows) + " rows of " +
                                        std::to_string(columns) + " pixels, but holds " + std::to_string(bytes.size()) +
                                        " bytes of them");
  ImageTable table;
  table.columns = columns;
  table.pixels.resize(std::size_t{rows} * columns);
  for (std::size_t row = 0; row < rows; ++row, bytes.remove_prefix(row_bytes)) {
    table.labels.push_back(static_cast<unsigned char>(bytes.front()));
    std::memcpy(table.pixels.data() + row * columns, bytes.data() + 1, row_bytes - 1);
  }
  return table;
}

ImageTable parse_csv(std::string_view text, std::string const& name) {
  ImageTable table;
  for (std::size_t line = 1; !text.empty(); ++line) {
    auto const end = std::min(text.find('\n'), text.size());
    auto row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!row.empty() && row.back() == '\r') row.remove_suffix(1);
    if (row.empty()) continue;
    auto const refuse = [&](std::string const& why) {
      throw Error(Errc::bad_argument, name + ", line " + std::to_string(line) + ": " + why);
    };
    std::size_t cells = 0;
    while (true) {
      float value = 0;
      auto const [rest, error] = std::from_chars(row.data(), row.data() + row.size(), value);
      if (error != std::errc()) refuse("cell " + std::to_string(cells + 1) + " is not a number");
      if (cells > 0) {
        table.pixels.push_back(value);
      } else if (value >= 0 && value < 1000 && value == std::floor(value)) {
        table.labels.push_back(static_cast<std::int64_t>(value));
      } else {
        refuse("the label must be a whole number, at least 0");
      }
      ++cells;
      row.remove_prefix(static_cast<std::size_t>(rest - row.data()));
      if (row.empty()) break;
      if (row.front() != ',') refuse("cell " + std::to_string(cells) + " is not a number");
      row.remove_prefix(1);
    }
    if (table.columns == 0) table.columns = cells - 1;
    if (cells - 1 != table.columns)
      refuse(std::to_string(cells - 1) + " pixels, the first row has " + std::to_string(table.columns));
  }
  return table;
}

}  // namespace

ImageTable load_image_table(std::filesystem::path const& file) {
  std::ifstream stream(file, std::ios::binary);
  std::stringstream content;
  if (!stream || !(content << stream.rdbuf()))
    throw Error(Errc::not_found, "there is no data in " + file.string() +
                                     "; `python3 examples/data/prepare` makes build/data/digits.csv and mnist.csv "
                                     "(./launch/quickstart does it too)");
  std::string const bytes = std::move(content).str();
  bool const is_binary = bytes.starts_with(kMagic);
  return is_binary ? parse_binary(bytes, file.string()) : parse_csv(bytes, file.string());
}

}  // namespace examples
