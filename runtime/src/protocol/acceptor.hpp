#pragma once

#include <optional>

#include "value.hpp"

namespace holdfast::protocol {

/// One member's votes on the next view. A new view begins with a new acceptor; the old one never votes again.
class Acceptor {
 public:
  /// Promised or accepted anything: the member completes no result and announces no READY until the next view.
  [[nodiscard]] bool is_frozen() const { return promised_.number > 0; }
  [[nodiscard]] Ballot promised() const { return promised_; }
  [[nodiscard]] Ballot accepted_ballot() const { return accepted_ballot_; }
  [[nodiscard]] std::optional<Value> const& accepted() const { return accepted_; }

  /// Promises to take part in no older ballot. Repeating the newest promise changes nothing.
  /// @return false when a higher ballot was promised
  bool promise(Ballot ballot);
  /// @return false when a higher ballot was promised
  bool accept(Ballot ballot, Value const& value);

 private:
  Ballot promised_{};
  Ballot accepted_ballot_{};
  std::optional<Value> accepted_;
};

}  // namespace holdfast::protocol
