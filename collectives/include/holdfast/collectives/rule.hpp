#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

/// What a rule needs to know about the contributions.
enum class RuleKind {
  linear,      ///< y = sum_i c_i x_i, c a function of the Gram matrix alone
  coordinate,  ///< each output element depends on its own column alone; no statistics are exchanged
  both,        ///< a Gram decides a mixture of rows, then a coordinate rule works on the mixed rows
};

/// One line of the table of rules.
struct RuleDescription {
  std::string name;
  std::string source;      ///< citation
  std::string parameters;  ///< with defaults, "" if none
  std::string bound;       ///< on f for n contributions: "2f < n"
  RuleKind kind;
  bool is_mixer;  ///< comes before a final rule, joined by `+`
};

/// An aggregation rule as text: mixers, then one final rule, `nnm+geometric_median(iterations=8)`.
///
/// Immutable value, cheap to copy. Pure: no state, no randomness; what a rule remembers between calls is passed in.
class Rule {
 public:
  /// @throws Error bad_argument naming the unknown rule or parameter and listing the valid ones
  [[nodiscard]] static Rule parse(std::string_view text);
  /// Every rule and mixer of this build, in the order of the documentation.
  [[nodiscard]] static std::vector<RuleDescription> all();

  /// Canonical text: equal texts behave equally. Compared between members at start.
  [[nodiscard]] std::string const& text() const;
  [[nodiscard]] RuleKind kind() const;
  /// Whether the decision needs the Gram matrix of the rows.
  [[nodiscard]] bool needs_gram() const;
  /// Whether the Gram must be that of x_i - v, v the previous result (zeros at first); v also enters the result.
  [[nodiscard]] bool needs_center() const;
  /// Whether each member gets an output of its own (nearest-neighbour averaging).
  [[nodiscard]] bool is_per_member() const;
  /// Whether it may give a whole row no weight and say so (Exclusion::Cause::no_weight). A coordinate-wise rule by
  /// itself weighs each element by itself; the mean weighs every row.
  [[nodiscard]] bool names_unused_rows() const;
  /// Whether sample weights change the result; the others ignore weights.
  [[nodiscard]] bool uses_weights() const;

  /// f_out_of_bounds, naming the bound, unless the rule tolerates f faults among n contributions.
  [[nodiscard]] Outcome<void> check_bounds(int contributions, int byzantine) const;
  /// What a user should know before trusting this rule, one sentence each: "nnm+mean is not robust ...".
  [[nodiscard]] std::vector<std::string> warnings() const;

  struct Impl;
  [[nodiscard]] Impl const& impl() const { return *impl_; }

 private:
  explicit Rule(std::shared_ptr<Impl const> impl);
  std::shared_ptr<Impl const> impl_;
};

}  // namespace holdfast
