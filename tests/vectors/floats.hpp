#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

namespace holdfast::vectors {

/// Empty if the two have the same bits, else the first element that differs.
[[nodiscard]] inline std::string difference(std::span<float const> given, std::span<float const> expected) {
  if (given.size() != expected.size())
    return std::to_string(given.size()) + " elements, expected " + std::to_string(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    auto const a = std::bit_cast<std::uint32_t>(given[i]);
    auto const b = std::bit_cast<std::uint32_t>(expected[i]);
    if (a == b) continue;
    char text[96];
    std::snprintf(text, sizeof text, "element %zu is 0x%08x, expected 0x%08x", i, a, b);
    return text;
  }
  return {};
}

[[nodiscard]] inline std::string difference(std::span<std::byte const> given, std::span<std::byte const> expected) {
  if (given.size() != expected.size())
    return std::to_string(given.size()) + " bytes, expected " + std::to_string(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (given[i] != expected[i])
      return "byte " + std::to_string(i) + " is " + std::to_string(std::to_integer<int>(given[i])) + ", expected " +
             std::to_string(std::to_integer<int>(expected[i]));
  return {};
}

}  // namespace holdfast::vectors
