#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "message.hpp"

namespace holdfast::protocol {

/// The supervisor's judgement on who may be ended: one arbiter for all, one grant at a time.
///
/// A kill that was asked for is no certificate: the end of the process must have been seen. Whoever drives this watches
/// the processes, reports every end, and passes each certificate on to all members.
class FencingArbiter {
 public:
  /// The newest view, from whoever reports it; older ones are ignored.
  void note_view(ViewId view, std::vector<MemberId> const& members);
  /// Takes a request. It stands until the next decide().
  void request(FenceRequest const& request);
  /// The process to end now, if any. Drops every request: who still needs one repeats it.
  [[nodiscard]] std::optional<MemberId> decide();
  /// The end of this process was observed.
  /// @return the members certified by this: send a Certificate for each to everyone
  std::vector<MemberId> on_ended(MemberId member);

 private:
  ViewId view_{};
  MemberSet members_;
  MemberSet certified_;
  MemberSet fenced_;                 ///< asked to end, seen to end or not
  std::optional<MemberId> awaited_;  ///< fenced, and its end is not seen yet
  std::vector<FenceRequest> requests_;
};

}  // namespace holdfast::protocol
