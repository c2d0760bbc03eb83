#pragma once

#include <memory>
#include <optional>
#include <vector>

#include <holdfast/collectives/gradient_spread.hpp>
#include <holdfast/runtime/outcome.hpp>

#include "fabrics/fabric.hpp"
#include "pipeline/collective.hpp"

namespace holdfast::pipeline {

/// One robust decision over one collective (scope bucket) or over all collectives of a round (scope step): masks and
/// Gram matrices of all owners are exchanged, and everyone computes the same contribution set and coefficients from
/// them.
///
/// A collective without a rule has an agreement with nothing to agree on.
/// Threads: only the thread that drives.
class Agreement {
 public:
  /// @param first_sequence of the exchange of its first collective; the small exchange has the same, so that members
  /// stay
  ///        in step even when they disagree on the scope
  Agreement(int world_size, std::uint64_t first_sequence) : world_size_(world_size), first_sequence_(first_sequence) {}

  void add(std::shared_ptr<Collective> collective) { collectives_.push_back(std::move(collective)); }
  /// No further collective will be added.
  void seal() { is_sealed_ = true; }
  void open(fabrics::Fabric& fabric, fabrics::ExchangeKey key) { small_ = fabric.open_small(key); }

  bool advance(Blocker& blocker);

  [[nodiscard]] std::uint64_t first_sequence() const { return first_sequence_; }
  /// Ranks without which it cannot go on now.
  [[nodiscard]] RowMask missing() const;
  /// Who sent what cannot be used, and what that was: the round waits for a view without them.
  [[nodiscard]] std::vector<Accusation> take_accusations();
  /// False when it only waits for the round to be sealed.
  [[nodiscard]] bool can_advance() const;
  [[nodiscard]] std::vector<std::shared_ptr<Collective>> const& collectives() const { return collectives_; }
  /// Every result is here, or the agreed failure is.
  [[nodiscard]] bool is_held() const { return is_held_; }
  [[nodiscard]] std::optional<Failure> const& failure() const { return failure_; }
  [[nodiscard]] RowMask const& contributors() const { return contributors_; }
  /// Ranks that abstained from any collective.
  [[nodiscard]] RowMask abstained() const;
  [[nodiscard]] RowMask const& non_finite() const { return non_finite_; }
  /// Rows that were let in and given no weight in any shard; none where there is no rule.
  [[nodiscard]] RowMask const& unused() const { return unused_; }
  /// Where it was asked for.
  [[nodiscard]] std::optional<GradientSpread> const& spread() const { return spread_; }
  /// The rule that decided, "" where there is none.
  [[nodiscard]] std::string rule_text() const;
  [[nodiscard]] bool used_fallback() const;
  [[nodiscard]] bool has_rule() const { return needs_agreement(); }

 private:
  [[nodiscard]] bool needs_agreement() const {
    return !collectives_.empty() && collectives_.front()->needs_agreement();
  }
  void post();
  void decide();
  [[nodiscard]] std::optional<Failure> choose_rule(RowMask const& arrived);
  void fail_with(Failure failure);
  void accuse(int owner, std::string what);

  int world_size_;
  std::uint64_t first_sequence_;
  std::vector<std::shared_ptr<Collective>> collectives_;
  std::unique_ptr<fabrics::SmallExchange> small_;
  std::optional<AppliedRule> rule_;  ///< that decided
  bool is_sealed_ = false;
  bool is_posted_ = false;
  bool is_decided_ = false;
  bool is_held_ = false;
  RowMask accused_ = RowMask(world_size_);
  std::vector<Accusation> accusations_;
  std::optional<Failure> failure_;
  RowMask contributors_ = RowMask::all(world_size_);
  RowMask non_finite_ = RowMask(world_size_);
  RowMask unused_ = RowMask(world_size_);
  std::optional<GradientSpread> spread_;
};

}  // namespace holdfast::pipeline
