#include "text.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace holdfast::text {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      std::size_t const substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string seconds(std::chrono::nanoseconds duration) {
  char buffer[32];
  auto const ns = static_cast<double>(duration.count());
  if (ns >= 1e9)
    std::snprintf(buffer, sizeof buffer, "%.1f s", ns / 1e9);
  else if (ns >= 1e6)
    std::snprintf(buffer, sizeof buffer, "%.0f ms", ns / 1e6);
  else
    std::snprintf(buffer, sizeof buffer, "%.0f us", ns / 1e3);
  return buffer;
}

std::string list(std::vector<std::string> const& items) {
  std::string text;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += i + 1 == items.size() ? " and " : ", ";
    text += items[i];
  }
  return text;
}

std::string hex(std::uint64_t word) {
  char buffer[20];
  std::snprintf(buffer, sizeof buffer, "%016llx", static_cast<unsigned long long>(word));
  return buffer;
}

std::vector<std::string> nearest_first(std::string_view word, std::vector<std::string> candidates) {
  std::stable_sort(candidates.begin(), candidates.end(), [word](std::string const& a, std::string const& b) {
    return edit_distance(word, a) < edit_distance(word, b);
  });
  return candidates;
}

}  // namespace holdfast::text
