#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/state_registry.hpp>

#include "state_frame.hpp"

namespace holdfast::state {

/// What a committed round gave, kept until newcomers have it.
struct RoundRecord {
  struct Result {
    std::shared_ptr<std::byte[]> bytes;
    std::uint64_t size = 0;
    std::uint8_t dtype = 0;
    bool is_center = false;  ///< rules of the next round centre on it
  };
  RoundId round{};
  bool has_results = false;  ///< else it failed by its rule: the state is what it was
  std::vector<Result> results;

  [[nodiscard]] std::uint64_t bytes() const {
    std::uint64_t bytes = 0;
    for (auto const& result : results) bytes += result.size;
    return bytes;
  }
};

/// A copy of the state after these rounds, as a donor sends and a newcomer receives it.
struct StateCopy {
  StateSnapshot parts;
  std::vector<std::byte> rules;  ///< what rules remember from round to round
  Positions positions;
  Digest digest{};  ///< of the parts
};

}  // namespace holdfast::state
