#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// A contribution that was left out of a round, by agreement of all members.
struct Exclusion {
  int rank = 0;
  MemberId member{};
  std::string reason;  ///< "non-finite elements"
};

/// What a committed round says about itself; equal at all members but for `sent_bytes`.
struct Reduction {
  ViewId view{};
  RoundId round{};
  std::vector<int> contributors;    ///< ranks whose contribution is in every result of the round, ascending
  std::vector<Exclusion> excluded;  ///< the others, ascending by rank
  std::uint64_t sent_bytes = 0;     ///< payload this member sent to others in this round
};

}  // namespace holdfast
