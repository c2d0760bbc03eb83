#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/collectives/attacks.hpp>
#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/rule.hpp>

namespace examples {

/// Which members lie, and how: the flags `--attack` and `--attackers`.
struct AttackFlags {
  std::string attack = "none";
  std::vector<int> attackers;

  /// @throws holdfast::Error bad_argument listing the attacks, or the ranks there are (world_size 0: not known yet)
  void check(int world_size) const;
  [[nodiscard]] bool is_on() const { return attack != "none" && !attackers.empty(); }
  [[nodiscard]] bool is_attacker(int rank) const;
};

/// Replaces an attacker's contributions before they leave; goes into DataParallelOptions::on_contribution.
///
/// An omniscient attack gets the honest rows from an oracle: an all-gather of all rows on a stream of its own, which
/// all members take part in. It belongs to the experiment and is no part of the training, nor of its bytes.
class Adversary {
 public:
  /// Collective. The communicator must outlive the adversary.
  Adversary(holdfast::Communicator& communicator, AttackFlags const& flags, std::uint64_t seed);

  /// Whether attackers train on labels classes - 1 - y.
  [[nodiscard]] bool flips_labels() const;
  /// What this member has to hook into its contributions; empty if nothing.
  [[nodiscard]] std::function<void(std::span<float>)> hook();
  /// The rule that attacks against a rule (optimal_*) are to deceive.
  void know(holdfast::Rule rule) { rule_ = std::move(rule); }
  void begin_step(std::uint64_t step) {
    step_ = step;
    row_ = 0;
  }

 private:
  void replace(std::span<float> row);

  holdfast::Communicator& communicator_;
  AttackFlags flags_;
  holdfast::Attack attack_;
  std::uint64_t seed_;
  std::uint64_t step_ = 0;
  std::size_t row_ = 0;                                   ///< of this step: a model may be sent in several
  std::map<std::size_t, holdfast::AttackMemory> memory_;  ///< of each of them
  std::optional<holdfast::Rule> rule_;
  bool is_attacker_ = false;
  bool needs_oracle_ = false;
  holdfast::Stream oracle_;
};

}  // namespace examples
