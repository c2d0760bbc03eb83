#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/collectives/fwd.hpp>

namespace holdfast {

/// What an attacker has to know to mount an attack.
enum class AttackKnowledge {
  local,       ///< its own row alone
  colluding,   ///< the rows that the attackers would have sent
  omniscient,  ///< the honest rows of this step
};

/// One line of the table of attacks.
struct AttackDescription {
  std::string name;
  std::string row;         ///< what the attacker sends, as a formula
  std::string parameters;  ///< with defaults, "" if none
  AttackKnowledge knowledge;
};

/// What an attacker remembers from step to step: for `mimic(heuristic)` and `delayed`. One for each attacker and run.
struct AttackMemory {
  std::uint64_t steps = 0;
  std::vector<double> direction;         ///< in which the honest rows differ most
  std::vector<double> mean;              ///< of all honest rows so far
  std::optional<std::size_t> copied;     ///< the honest row that is copied from now on
  std::deque<std::vector<double>> past;  ///< own rows, the oldest first
};

/// What an attacker works with in one step.
struct AttackInput {
  std::span<float const> own;                      ///< the row that the member would have sent
  std::span<std::span<float const> const> honest;  ///< rows of the honest members; empty unless omniscient
  std::span<std::span<float const> const> colluding =
      {};                 ///< rows that the attackers would have sent; for colluding ones
  int contributions = 0;  ///< n: honest and Byzantine rows together
  int byzantine = 0;      ///< f
  std::uint64_t step = 0;
  std::uint64_t member = 0;            ///< distinguishes attackers whose rows are independent
  std::uint64_t seed = 0;              ///< the same (seed, step, member) gives the same row
  Rule const* rule = nullptr;          ///< the rule to be deceived, for optimal_*
  std::span<float const> center = {};  ///< previous result of a rule that centres on it; empty: zeros
  AttackMemory* memory = nullptr;      ///< for attacks that have one; null: every step is the first
};

/// A way to lie, as text: `alie(-1.5)`, `gaussian(0, 10)`. For examples, tests and experiments.
///
/// Immutable value, cheap to copy.
class Attack {
 public:
  /// @throws Error bad_argument naming the unknown attack or parameter and listing the valid ones
  [[nodiscard]] static Attack parse(std::string_view text);
  /// Every attack of this build.
  [[nodiscard]] static std::vector<AttackDescription> all();

  [[nodiscard]] std::string const& text() const;
  [[nodiscard]] AttackKnowledge knowledge() const;
  /// Whether it needs AttackInput::rule.
  [[nodiscard]] bool knows_rule() const;
  /// Whether the attacker trains on labels y -> classes - 1 - y and then sends that row unchanged: the caller has to
  /// do this; make_row copies the own row.
  [[nodiscard]] bool flips_labels() const;

  /// Writes the Byzantine row.
  /// @param out as long as the own row
  /// @throws Error bad_argument if lengths differ, or rows or the rule that the attack needs are not given
  void make_row(AttackInput const& input, std::span<float> out) const;

  struct Impl;
  [[nodiscard]] Impl const& impl() const { return *impl_; }

 private:
  explicit Attack(std::shared_ptr<Impl const> impl);
  std::shared_ptr<Impl const> impl_;
};

}  // namespace holdfast
