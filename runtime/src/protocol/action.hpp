#pragma once

#include <chrono>
#include <string>
#include <variant>

#include "message.hpp"

/// What the core wants done. It only asks: whoever drives it sends, waits and wakes.
namespace holdfast::protocol {

/// Time is handed in; the core reads no clock.
using Instant = std::chrono::steady_clock::time_point;

struct Send {
  int rank = 0;
  Message message;
};
/// Call on_timer() at this instant. There is one timer; a later request replaces it.
struct SetTimer {
  Instant at;
};
/// Nothing more goes to this member: close our direction once what was sent before is out.
struct Disconnect {
  int rank = 0;
};
struct RoundCommitted {
  RoundId round;
};
struct ExchangeComplete {
  std::string key;
};
struct MemberLeft {
  int rank = 0;
};
struct ViewHasFailed {};

using Action = std::variant<Send, SetTimer, Disconnect, RoundCommitted, ExchangeComplete, MemberLeft, ViewHasFailed>;

}  // namespace holdfast::protocol
