#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

/// Parsers of what comes from outside, each with inputs that it accepts.
namespace holdfast::fuzz {

using Bytes = std::vector<std::byte>;

struct Target {
  std::string name;
  std::vector<Bytes> seeds;
  /// Ends the process where a promise of the parser is broken.
  void (*run)(std::span<std::byte const> input);
};

/// One for each control message, each kind of frame, each side of the handshake, and the texts beside them.
[[nodiscard]] std::vector<Target> const& targets();

}  // namespace holdfast::fuzz
