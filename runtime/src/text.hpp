#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Small pieces of the messages that people read.
namespace holdfast::text {

/// "2.1 s", "350 ms", "12 us".
[[nodiscard]] std::string seconds(std::chrono::nanoseconds duration);
/// "a, b and c".
[[nodiscard]] std::string list(std::vector<std::string> const& items);
[[nodiscard]] std::string hex(std::uint64_t word);
/// `candidates` by edit distance to `word`, nearest first; equal distances keep their order.
[[nodiscard]] std::vector<std::string> nearest_first(std::string_view word, std::vector<std::string> candidates);

}  // namespace holdfast::text
