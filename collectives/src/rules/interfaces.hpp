#pragma once

#include <span>
#include <string>
#include <vector>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/outcome.hpp>

#include "rules/decision.hpp"

namespace holdfast::rules {

/// What a rule may look at: n surviving rows (mixed ones after a mixer), f faults among them.
struct Statistics {
  GramMatrix gram;  ///< of the rows, of row - centre for a rule with a centre
  int contributions = 0;
  int byzantine = 0;
  std::span<double const> weights;  ///< clamped to what the specification allows; one per row
  std::span<int const> ranks;       ///< original rank of each row; empty once rows were put together
  std::uint64_t random_key = 0;     ///< names the random choices of this decision, the same at all members
};

/// A rule or mixer with its parameters. Stateless.
class Step {
 public:
  Step() = default;
  Step(Step const&) = delete;
  Step& operator=(Step const&) = delete;
  virtual ~Step() = default;

  /// What a parameter demands of n and f beyond the rule's bound; "" if it holds.
  [[nodiscard]] virtual std::string unmet_demand(int /*contributions*/, int /*byzantine*/) const { return {}; }
  /// Whether the result depends on where the origin is, so that the Gram must be that of the rows themselves.
  [[nodiscard]] virtual bool uses_origin() const { return false; }
};

/// y = sum c_i x_i + c_v v with c a function of the Gram.
class LinearRule : public Step {
 public:
  [[nodiscard]] virtual bool needs_gram() const { return true; }
  [[nodiscard]] virtual bool uses_weights() const { return false; }
  [[nodiscard]] virtual bool is_per_member() const { return false; }
  [[nodiscard]] virtual CenterSource center() const { return CenterSource::none; }
  /// Whether a single row is returned as it is.
  [[nodiscard]] virtual bool keeps_single_row() const { return true; }
  /// One combination of the rows, or one per row.
  [[nodiscard]] virtual Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const = 0;
};

/// y_j is a function of column j alone.
class CoordinateRule : public Step {
 public:
  [[nodiscard]] virtual CoordinateKernel kernel(int contributions, int byzantine) const = 0;
};

/// Chooses rows by their Gram, then works on each column of them.
class SelectingRule : public Step {
 public:
  /// Ascending, at least one.
  [[nodiscard]] virtual std::vector<int> select(Statistics const& statistics) const = 0;
  /// For the selected rows, given n and f before the selection.
  [[nodiscard]] virtual CoordinateKernel kernel(int contributions, int byzantine) const = 0;
};

/// Y = M X before the final rule. Unless the number of rows changes, row i of Y belongs to the member of row i of X.
class Mixer : public Step {
 public:
  [[nodiscard]] virtual bool needs_gram() const { return true; }
  /// Rows of Y for so many rows of X.
  [[nodiscard]] virtual int output_rows(int contributions) const { return contributions; }
  [[nodiscard]] virtual std::vector<Combination> mix(Statistics const& statistics) const = 0;
};

}  // namespace holdfast::rules
