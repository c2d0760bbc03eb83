#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/collectives/gradient_spread.hpp>
#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// A contribution that was left out of a round, by agreement of all members.
struct Exclusion {
  enum class Cause {
    non_finite,  ///< it held a NaN or an infinity
    missing,     ///< it did not arrive in time
    abstained,   ///< its member sent none
    no_weight,   ///< the rule let it in and gave it no weight; a coordinate-wise rule cannot say this of a whole row
  };
  int rank = 0;
  MemberId member{};
  std::string reason;  ///< "non-finite elements", "given no weight by krum"
  Cause cause = Cause::non_finite;
};

/// What a committed round says about itself; equal at all members but for `sent_bytes`.
struct Reduction {
  ViewId view{};
  RoundId round{};
  std::vector<MemberId> members;  ///< of that view, in rank order
  std::vector<int> contributors;  ///< ranks whose contribution the rule saw in every result of the round, ascending
  std::vector<MemberId> contributing_members;  ///< of `contributors`: ranks change with the view
  double weight = 0;                           ///< sum of the contributors' weights in the round's first aggregate
  /// The others, and those that the rule gave no weight in any result of the round; ascending by rank.
  std::vector<Exclusion> excluded;
  /// With AggregateOptions::says_spread, of a round with one decision: of the contributions that the rule saw.
  std::optional<GradientSpread> spread;
  bool used_fallback = false;    ///< AggregateOptions::fallback took the rule's place
  std::uint64_t sent_bytes = 0;  ///< payload this member sent to others in this round
};

}  // namespace holdfast
