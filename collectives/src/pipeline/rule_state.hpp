#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <holdfast/runtime/outcome.hpp>

namespace holdfast::pipeline {

/// What rules remember from round to round, for joiners and checkpoints: the result that the next round centres on, for
/// each collective of a round of each stream. The same at all members.
struct RuleState {
  struct Place {
    std::string stream;
    std::uint32_t index_in_round = 0;
    friend auto operator<=>(Place const&, Place const&) = default;
  };
  std::map<Place, std::shared_ptr<std::vector<std::byte>>> centers;  ///< written to by who holds one alone

  /// Equal states give equal bytes.
  [[nodiscard]] std::vector<std::byte> encode() const;
  /// @return corrupt_message for bytes that encode() did not make
  [[nodiscard]] static Outcome<RuleState> decode(std::span<std::byte const> bytes);
};

}  // namespace holdfast::pipeline
