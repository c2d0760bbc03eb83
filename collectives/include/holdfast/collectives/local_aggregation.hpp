#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/collectives/buffer.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

struct LocalAggregationOptions {
  int byzantine = 0;                ///< f
  std::span<double const> weights;  ///< one per row, or empty: all equal
  /// The result of the previous call, for rules that centre on it; no elements: zeros.
  ConstBuffer center;
  int member = 0;  ///< whose output to write, for rules with an output per member
  /// Names the random choices (bucketing): another number for each call.
  std::uint64_t random_key = 0;
};

/// What a rule did with the rows.
struct LocalAggregation {
  std::vector<int> non_finite;  ///< rows that were screened, ascending
  std::vector<int> unused;      ///< rows that were let in and given no weight, ascending
};

/// Applies a rule to rows that are all in this process: the result that a group of members would agree on.
///
/// For tests, simulations and experiments. Same code, hence the same bits as Communicator::aggregate over one owner.
/// @param rows  one per member, equal elements and floating-point dtype
/// @param out   as a row; may not overlap one
/// @return f_out_of_bounds, too_many_faulty_rows
/// @throws Error bad_argument when lengths or dtypes differ
[[nodiscard]] Outcome<LocalAggregation> aggregate_rows(Rule const& rule, std::span<ConstBuffer const> rows,
                                                       MutableBuffer out, LocalAggregationOptions const& options = {});

}  // namespace holdfast
