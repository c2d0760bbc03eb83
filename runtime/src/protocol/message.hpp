#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/progress.hpp>
#include <holdfast/runtime/rounds.hpp>

#include "report.hpp"
#include "value.hpp"

/// What members say to each other. Plain data; the bytes are the business of net/wire.
namespace holdfast::protocol {

/// Bumped when a message changes. Members of one job run the same version of holdfast, so there is no negotiation.
inline constexpr std::uint32_t kProtocolVersion = 3;
inline constexpr std::size_t kMaxContributionBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxKeyBytes = 1'024;

/// First message on a connection, from the one that connected. `token` was published by the one that accepts.
struct Hello {
  std::uint32_t protocol_version = kProtocolVersion;
  std::string job_id;
  std::uint64_t token = 0;
  std::int32_t from_rank = 0;
  std::int32_t to_rank = 0;
};

/// The answer to Hello: accepted, or not and why.
struct Welcome {};
struct Refused {
  std::string reason;
};

struct Ready {
  ViewId view{};
  RoundId round{};
  Digest digest{};
};

/// Every period to every member of the view, and at once when something in it changes.
struct Heartbeat {
  Progress progress;
  ViewId view{};
  std::uint64_t sequence = 0;  ///< grows; an older heartbeat that arrives late is ignored
  MemberSet suspects{};        ///< members of the view that the sender does not hear, or is told not to trust
  MemberSet certified{};       ///< members of the view whose end somebody observed
  bool is_blocked = false;     ///< those that the sender hears and that hear it are no quorum
  bool is_leaving = false;
  Ballot promised{};          ///< highest for the next view; number 0: none
  std::vector<Ready> open{};  ///< READYs sent a while ago whose rounds are not committed here: a request to repeat
};

/// One member's part of a small all-gather. `sequence` counts the exchanges of `key` from 1.
struct Contribution {
  ViewId view{};
  std::string key;
  std::uint64_t sequence = 0;
  std::vector<std::byte> bytes;
  bool asks = false;  ///< the sender misses the receiver's part: it asks to repeat it
};

/// The view cannot go on; every member ends with this failure. `elapsed` stays behind: it is each caller's own.
struct ViewFailed {
  Failure failure;
};

/// The sender goes in good order. READYs that it announced in shared memory are repeated here, so that the order in
/// which the two channels are read does not matter.
struct Leave {
  std::vector<Ready> announced;
  ViewId view{};
};

// --- changing the view: one instance of Paxos per view number, the members of view v decide v + 1 --------------------

/// Phase 1. `current` is the decided value of the sender's view v, for members that have not installed it yet.
struct Prepare {
  Value current{};
  Ballot ballot{};
};
struct Promise {
  ViewId view{};
  Ballot ballot{};
  Report report{};           ///< the same in every promise of this member in this view
  Ballot accepted_ballot{};  ///< number 0: nothing accepted
  std::optional<Value> accepted{};
};
/// The answer to a ballot that is too old. `promised` is the higher one.
struct Preempted {
  ViewId view{};
  Ballot ballot{};
  Ballot promised{};
};
/// Phase 2.
struct Propose {
  ViewId view{};
  Ballot ballot{};
  Value value{};
};
struct Accepted {
  ViewId view{};
  Ballot ballot{};
};
/// Also the answer to whatever belongs to an older view.
struct Decided {
  Value value{};
};

/// A newcomer's announcement, repeated every period and whenever its state has advanced.
struct LearnerState {
  Seat seat{};
  std::vector<StreamPosition> positions{};  ///< ascending streams
  bool is_ready = true;                     ///< else it only follows the views: it has state to fetch first
};

/// From a proposer to the supervisor.
struct FenceRequest {
  ViewId view{};
  std::vector<MemberId> members{};  ///< of that view, so that the supervisor knows the newest one
  MemberId requester{};
  MemberId suspect{};
};
/// From whoever observed the end of a process.
struct Certificate {
  MemberId member{};
};
/// To the supervisor: where newcomers may call this process once it is a member.
struct Reachable {
  std::string join;  ///< as the key `join` takes it
};

// --- before a newcomer is connected to the members, and beside the protocol ------------------------------------------

/// First message on a connection of a process that wants to join, instead of Hello. The answer is Seats or Refused; a
/// member that cannot answer now closes the connection.
struct Knock {
  std::uint32_t protocol_version = kProtocolVersion;
  std::string record;  ///< as members publish them at start
};
/// Who is here, and under which id the newcomer may announce itself to them.
struct Seats {
  MemberId id{};
  Value value{};
};
/// Asks for what the receiver has published under a key.
struct Ask {
  std::string key;
};
struct Notice {
  std::string key;
  bool is_known = false;
  std::vector<std::pair<std::string, std::string>> fields;
};

using Message = std::variant<Hello, Welcome, Refused, Heartbeat, Ready, Contribution, ViewFailed, Leave, Prepare,
                             Promise, Preempted, Propose, Accepted, Decided, LearnerState, FenceRequest, Certificate,
                             Knock, Seats, Ask, Notice, Reachable>;

}  // namespace holdfast::protocol
