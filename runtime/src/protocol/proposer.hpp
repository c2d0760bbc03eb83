#pragma once

#include <optional>

#include "actions.hpp"
#include "quorum.hpp"
#include "value_choice.hpp"

namespace holdfast::protocol {

/// One member's own ballot for the next view, if it has one open.
class Proposer {
 public:
  enum class Phase { idle, preparing, proposing };

  [[nodiscard]] Phase phase() const { return phase_; }
  [[nodiscard]] Ballot ballot() const { return ballot_; }
  [[nodiscard]] Promises const& promises() const { return promises_; }
  [[nodiscard]] MemberSet const& accepted() const { return accepted_; }
  [[nodiscard]] Value const& value() const { return value_; }

  /// Whether a (new) ballot may be opened: none is open, or the open one is late or overtaken by `highest`.
  [[nodiscard]] bool may_open(action::Instant now, Ballot highest) const;
  /// @param deadline    when this ballot counts as failed
  /// @param not_before  earliest instant of the next one
  void open(Ballot ballot, action::Instant deadline, action::Instant not_before);
  /// Moves the earliest instant of the next ballot.
  void wait_until(action::Instant not_before) { not_before_ = not_before; }
  [[nodiscard]] int attempts() const { return attempts_; }

  void on_promise(MemberId from, Promise promise);
  [[nodiscard]] MemberSet promisers() const;
  /// Since when the promisers are a quorum.
  std::optional<action::Instant> quorum_since(Electorate const& electorate, MemberSet const& certified,
                                              action::Instant now);
  void propose(Value value);
  void on_accepted(MemberId from);

 private:
  Phase phase_ = Phase::idle;
  Ballot ballot_{};
  Promises promises_;
  std::optional<action::Instant> quorum_since_;
  Value value_;
  MemberSet accepted_;
  action::Instant deadline_{};
  action::Instant not_before_{};
  int attempts_ = 0;
};

}  // namespace holdfast::protocol
