#pragma once

#include <map>
#include <optional>
#include <string>

#include "adaptive_detector.hpp"
#include "message.hpp"
#include "quorum.hpp"

namespace holdfast::protocol {

/// What one member believes about the others of its view: whom it suspects and why, and what they said themselves.
class SuspicionTable {
 public:
  SuspicionTable(MemberId self, std::chrono::nanoseconds period, std::chrono::nanoseconds timeout);

  /// A new view: all its members are trusted afresh, except those whose end was observed.
  void begin_view(ViewId view, Electorate electorate);

  // Evidence.
  void tick(action::Instant now);
  /// Any message of this view. Withdraws the suspicion of silence and of a broken connection.
  void heard(MemberId member);
  /// @return false when a newer heartbeat was here before
  bool note(MemberId member, Heartbeat const& heartbeat);
  void broken(MemberId member, std::string what);
  /// The data plane waits for this member in vain; stands until then whatever the member says.
  void accuse(MemberId member, std::string what, action::Instant until);
  /// @return false when it was known
  bool certify(MemberId member, std::string what);

  // Belief.
  [[nodiscard]] MemberSet const& suspects() const { return suspects_; }
  [[nodiscard]] MemberSet const& certified() const { return certified_; }
  [[nodiscard]] std::string why(MemberId member) const;
  /// Those that this member hears and that hear it are no quorum.
  [[nodiscard]] bool is_blocked() const { return is_blocked_; }
  [[nodiscard]] bool is_link_lost(MemberId a, MemberId b) const;
  /// Whether every member of lower rank is out of the race: suspected, certified or blocked.
  [[nodiscard]] bool may_lead(MemberId candidate) const;
  /// Nobody promises to a member that it suspects or that says it is blocked.
  [[nodiscard]] bool may_promise_to(MemberId candidate) const;
  /// Somebody in the view suspects somebody in it.
  [[nodiscard]] bool is_anyone_suspected() const;
  [[nodiscard]] bool is_ballot_open_elsewhere() const;
  [[nodiscard]] Ballot highest_promise() const;
  [[nodiscard]] bool is_leaving(MemberId member) const;
  [[nodiscard]] Heartbeat const* last(MemberId member) const;

  /// Forms the suspects and `blocked` from the evidence.
  /// @return those suspected now that were not before
  MemberSet refresh(action::Instant now);

 private:
  struct Peer {
    std::optional<Heartbeat> last;  ///< of this view
    std::string broken;             ///< why the connection is gone; empty while it is not
    std::string accused;
    action::Instant accused_until{};
    std::string ended;
  };
  [[nodiscard]] bool says_blocked(MemberId member) const;
  [[nodiscard]] bool suspects(MemberId by, MemberId whom) const;

  MemberId self_;
  ViewId view_{};
  Electorate electorate_;
  AdaptiveDetector detector_;
  std::map<MemberId, Peer> peers_;
  MemberSet suspects_;
  MemberSet certified_;
  bool is_blocked_ = false;
};

}  // namespace holdfast::protocol
