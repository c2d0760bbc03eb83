#include "usage.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

namespace holdfast::launch {
namespace {

constexpr std::uint64_t kLargestBytes = std::uint64_t{1} << 40;

std::string quoted(std::string_view text) {
  return std::string(1, '\'').append(text).append(1, '\'');
}

std::uint64_t parse_size(std::string_view option, std::string_view text) {
  std::string const expected = "; expected a size such as 4096, 4K, 64M or 1G, from 1 to 1024G";
  std::uint64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view const suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  int shift = -1;
  if (suffix.empty() || suffix == "B") shift = 0;
  if (suffix == "K" || suffix == "k" || suffix == "KiB") shift = 10;
  if (suffix == "M" || suffix == "m" || suffix == "MiB") shift = 20;
  if (suffix == "G" || suffix == "g" || suffix == "GiB") shift = 30;
  if (error != std::errc() || shift < 0 || value == 0 || value > (kLargestBytes >> shift))
    throw UsageError(std::string(option) + ": " + quoted(text) + " is not valid" + expected);
  return value << shift;
}

// Optimal string alignment: a swap of two neighbouring letters, the commonest slip, costs one.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  std::iota(cost[0].begin(), cost[0].end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i)
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t const change = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  return cost[a.size()][b.size()];
}

}  // namespace

long parse_integer(std::string_view option, std::string_view text, long lowest, long highest) {
  long value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < lowest || value > highest)
    throw UsageError(std::string(option) + ": " + quoted(text) + " is not valid; expected a whole number from " +
                     std::to_string(lowest) + " to " + std::to_string(highest));
  return value;
}

double parse_seconds(std::string_view option, std::string_view text) {
  double value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr double kLongest = 1e6;
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= kLongest))
    throw UsageError(std::string(option) + ": " + quoted(text) +
                     " is not valid; expected a number of seconds from 0 to 1000000");
  return value;
}

std::vector<std::uint64_t> parse_byte_sizes(std::string_view option, std::string_view text) {
  constexpr std::uint64_t kRangeFactor = 4;
  std::vector<std::uint64_t> sizes;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::size_t const end = std::min(text.find(',', begin), text.size());
    std::string_view const part = text.substr(begin, end - begin);
    std::size_t const dash = part.find('-');
    std::uint64_t const first = parse_size(option, part.substr(0, dash));
    std::uint64_t const last = dash == std::string_view::npos ? first : parse_size(option, part.substr(dash + 1));
    if (last < first)
      throw UsageError(std::string(option) + ": the range " + quoted(part) +
                       " ends below its start; write it as 4K-256M");
    for (std::uint64_t bytes = first; bytes <= last; bytes *= kRangeFactor) sizes.push_back(bytes);
    begin = end + 1;
  }
  return sizes;
}

std::string format_bytes(std::uint64_t bytes) {
  char const* const suffixes[] = {"", "K", "M", "G"};
  int power = 0;
  while (power < 3 && bytes % 1024 == 0 && bytes != 0) {
    bytes /= 1024;
    ++power;
  }
  return std::to_string(bytes) + suffixes[power];
}

std::string_view require_one_of(std::string_view option, std::string_view text,
                                std::span<std::string_view const> candidates) {
  auto const found = std::find(candidates.begin(), candidates.end(), text);
  if (found != candidates.end()) return *found;
  throw UsageError(std::string(option) + ": " + quoted(text) + " is not valid; valid: " + join(candidates));
}

std::string_view nearest(std::string_view word, std::span<std::string_view const> candidates) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(word.size() / 2, 1) + 1;
  for (auto const candidate : candidates) {
    std::size_t const distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string join(std::span<std::string_view const> words, std::string_view separator) {
  std::string text;
  for (auto const word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

std::string shell_line(std::span<std::string const> words) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-";
  std::string line;
  for (auto const& word : words) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (char const letter : word) {
      if (letter == '\'')
        line += "'\\''";
      else
        line += letter;
    }
    line += '\'';
  }
  return line;
}

}  // namespace holdfast::launch
