#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {

/// A command line that cannot be carried out: one line that names the value and the valid ones. Ends with status 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline constexpr int kUsageStatus = 2;

/// Whole number of `option` within [lowest, highest].
/// @throws UsageError naming the option, the value and the bounds
[[nodiscard]] long parse_integer(std::string_view option, std::string_view text, long lowest, long highest);

/// Finite number of seconds >= 0.
/// @throws UsageError
[[nodiscard]] double parse_seconds(std::string_view option, std::string_view text);

/// Message sizes in bytes: `64M,4K` lists and `4K-256M` ranges (by factor 4), suffixes K, M, G in powers of 1024.
/// @throws UsageError for anything else, 0 and sizes above 1 TiB
[[nodiscard]] std::vector<std::uint64_t> parse_byte_sizes(std::string_view option, std::string_view text);

/// 67108864 -> "64M"; sizes that are not a whole number of K are given in bytes.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

/// `text` itself, if it is one of the candidates.
/// @throws UsageError naming the value and all valid ones
std::string_view require_one_of(std::string_view option, std::string_view text,
                                std::span<std::string_view const> candidates);

/// The candidate that a misspelt word most likely meant; empty if none is near.
[[nodiscard]] std::string_view nearest(std::string_view word, std::span<std::string_view const> candidates);

/// "a, b, c"
[[nodiscard]] std::string join(std::span<std::string_view const> words, std::string_view separator = ", ");

/// Words quoted for a POSIX shell and joined by blanks.
[[nodiscard]] std::string shell_line(std::span<std::string const> words);

}  // namespace holdfast::launch
