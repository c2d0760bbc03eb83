#pragma once

#include <chrono>
#include <string>
#include <variant>
#include <vector>

#include <holdfast/runtime/event_log.hpp>

#include "message.hpp"
#include "value.hpp"

/// What the membership wants done, in this order. It only asks: whoever drives it sends, waits, wakes and kills.
namespace holdfast::protocol::action {

using Instant = std::chrono::steady_clock::time_point;

/// Best effort: a message to a member without a connection is dropped; what matters is repeated.
struct Send {
  MemberId to{};
  Message message;
};
/// Call on_timer() at this instant. There is one timer; a later request replaces it.
struct SetTimer {
  Instant at;
};
/// Keep a connection to this member, and reconnect when it breaks, until Disconnect.
struct Connect {
  Seat seat;
};
/// Nothing more goes to this member: close our direction once what was sent before is out.
struct Disconnect {
  MemberId member{};
};

struct RoundCommitted {
  RoundId round;
};
struct ExchangeComplete {
  std::string key;
};

/// From now until InstallView the data plane completes no result and announces no READY; hold() refuses. Fabrics of the
/// view are aborted. There is always an InstallView, Evicted or Ended after it.
struct Freeze {
  ViewId view{};
};
/// A new view began. Per stream: an open round up to the verdict is committed (RoundCommitted came before this); a
/// later one is redone in this view from the untouched contributions, or finished with a holder's result where the
/// verdict names holders. Late frames of older views are never used.
struct InstallView {
  View view;
  Value value;
};
/// The others went on without this member, which stops training; failure() says why. The membership still answers the
/// others for a while: keep driving it until Ended. It may come back as a newcomer with a new id.
struct Evicted {};
/// No quorum can be reached: nothing is lost, nothing goes on, and it keeps trying.
struct Parked {
  std::string reason;
};
struct Unparked {};
/// A member left in good order (the next InstallView is without it; under OnLoss::end there is none).
struct MemberLeft {
  MemberId member{};
};
/// Stop driving: the view failed for good, leave() is done, or an excluded member has answered long enough.
struct Ended {};

/// Ask the supervisor to end `suspect`'s process. Expires there unless repeated, which the membership does.
struct RequestFence {
  FenceRequest request;
};

/// A newcomer announced itself: connect to it and let a donor stream the registered state to it.
struct LearnerAppeared {
  Seat seat;
};
struct LearnerGone {
  MemberId member{};
};

/// A line for the event log.
struct Trace {
  std::string event;
  EventLog::Fields fields;
};

using Any =
    std::variant<Send, SetTimer, Connect, Disconnect, RoundCommitted, ExchangeComplete, Freeze, InstallView, Evicted,
                 Parked, Unparked, MemberLeft, Ended, RequestFence, LearnerAppeared, LearnerGone, Trace>;

}  // namespace holdfast::protocol::action
