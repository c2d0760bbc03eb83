#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/outcome.hpp>

#include "kernels/kernels.hpp"
#include "kernels/row_mask.hpp"

/// From the exchanged statistics of a round to its result: screen_contributions -> decide -> apply. Pure functions of
/// exchanged data, so every member computes the same bits.
namespace holdfast::rules {

using kernels::Combination;
using kernels::CoordinateKernel;
using kernels::Rows;

/// Symmetric matrix of inner products of rows, fp64.
class GramMatrix {
 public:
  GramMatrix() = default;
  explicit GramMatrix(int rows)
      : rows_(rows), values_(static_cast<std::size_t>(rows) * static_cast<std::size_t>(rows), 0.0) {}
  /// From the packed upper triangle that kernels::accumulate_gram fills.
  [[nodiscard]] static GramMatrix from_packed(int rows, std::span<double const> packed_upper);

  [[nodiscard]] int rows() const { return rows_; }
  [[nodiscard]] double operator()(int i, int j) const { return values_[offset(i, j)]; }
  [[nodiscard]] double& operator()(int i, int j) { return values_[offset(i, j)]; }
  /// The matrix of the given rows, in the given order.
  [[nodiscard]] GramMatrix subset(std::span<int const> rows) const;
  /// Squared distances, each computed once, mirrored, at least 0, with zeros on the diagonal.
  [[nodiscard]] GramMatrix squared_distances() const;

 private:
  [[nodiscard]] std::size_t offset(int i, int j) const {
    return static_cast<std::size_t>(i) * static_cast<std::size_t>(rows_) + static_cast<std::size_t>(j);
  }
  int rows_ = 0;
  std::vector<double> values_;
};

/// What the rows are compared with before the Gram is formed, and what enters the result beside the rows.
enum class CenterSource {
  none,      ///< the Gram is that of the rows
  previous,  ///< the result of the previous call, zeros at first
  median,    ///< the coordinate-wise lower median of the surviving rows of this call, formed shard by shard
};
[[nodiscard]] CenterSource center_source(Rule const& rule);

/// The rows that take part in a round's result.
struct ContributionSet {
  RowMask rows;            ///< over the world size: arrived and finite
  RowMask missing;         ///< did not arrive: leaves n, not f
  RowMask non_finite;      ///< arrived with a NaN or an infinity: counts as one of the f faults
  std::vector<int> ranks;  ///< of `rows`, ascending: position in the surviving rows -> rank
  int byzantine = 0;       ///< faults that the rule still has to tolerate among `rows`

  [[nodiscard]] int contributions() const { return static_cast<int>(ranks.size()); }
};

/// Decides which rows take part. Bounds are tested on the rows that arrived, before screening.
/// @param arrived    rows that reached all owners
/// @param non_finite rows in which any owner saw a NaN or an infinity
/// @param byzantine  faults to tolerate, as configured
/// @param gram       of all world-size rows when the rule needs one: a diagonal that is not finite is a bad row, too
/// @return f_out_of_bounds or too_many_faulty_rows, naming the bound or the ranks
[[nodiscard]] Outcome<ContributionSet> screen_contributions(Rule const& rule, RowMask const& arrived,
                                                            RowMask const& non_finite, int byzantine,
                                                            GramMatrix const* gram = nullptr);

struct DecisionInput {
  ContributionSet set;
  /// Of the surviving rows (GramMatrix::subset(set.ranks)), summed over the owners in rank order; of row - centre for
  /// a rule with a centre. Empty for a rule that needs none.
  GramMatrix gram;
  std::vector<double> weights;  ///< of the surviving rows; empty: all equal
  /// Names the random choices of this decision (bucketing): equal at all members, another one for each decision.
  std::uint64_t random_key = 0;
};

/// What every owner does with its block of columns.
struct Decision {
  std::vector<Combination> mixture;            ///< rows to form first; empty: the surviving rows as they are
  std::optional<CoordinateKernel> coordinate;  ///< then this on each column of them; else `outputs`
  std::vector<Combination> outputs;            ///< of the surviving rows: one, or one per member
  std::vector<int> output_ranks;               ///< per-member rules: the rank that each output belongs to; else empty

  /// Index into the outputs of the member with this rank: 0 if all share one; none if its row was screened or missing.
  [[nodiscard]] std::optional<int> output_of(int rank) const;
  /// Positions of the surviving rows that enter no output but, where each member has its own, that of their own member:
  /// ascending. With a mixer before a coordinate rule: rows that are mixed into no other row, of which the rule sees
  /// nothing but their own mixture. A coordinate rule by itself gives no row as a whole a weight, so it names none.
  [[nodiscard]] std::vector<int> unused_rows() const;
};

/// @pre `input.set` comes from screen_contributions with the same rule
/// @return too_many_faulty_rows when no decision is possible (all weights zero; the named pivot was screened)
[[nodiscard]] Outcome<Decision> decide(Rule const& rule, DecisionInput const& input);

/// Writes one output for a block of columns; blocks may be cut anywhere.
/// @param surviving rows of the contribution set, in rank order
/// @param center    the same columns of the centre, null for zeros or for a rule without one
/// @param output    index of the output: 0, or decision.output_of(rank)
/// @param out       the same number of elements; may not overlap a row
void apply(Decision const& decision, Rows const& surviving, std::byte const* center, int output, std::byte* out);

/// What `apply` would give for all mixed rows: for tests and tools that look at a mixer by itself.
[[nodiscard]] Outcome<std::vector<Combination>> decide_mixture(Rule const& rule, DecisionInput const& input);

}  // namespace holdfast::rules
