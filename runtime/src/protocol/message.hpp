#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/progress.hpp>
#include <holdfast/runtime/rounds.hpp>

/// What members say to each other. Plain data; the bytes are the business of net/wire.
namespace holdfast::protocol {

/// Bumped when a message changes. Members of one job run the same version of holdfast, so there is no negotiation.
inline constexpr std::uint32_t kProtocolVersion = 1;
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

struct Heartbeat {
  Progress progress;
};

struct Ready {
  ViewId view{};
  RoundId round{};
  Digest digest{};
};

/// One member's part of a small all-gather. `sequence` counts the exchanges of `key` from 1.
struct Contribution {
  ViewId view{};
  std::string key;
  std::uint64_t sequence = 0;
  std::vector<std::byte> bytes;
};

/// The view cannot go on; every member ends with this failure. `elapsed` stays behind: it is each caller's own.
struct ViewFailed {
  Failure failure;
};

/// The sender goes in good order. READYs that it announced in shared memory are repeated here, so that the order in
/// which the two channels are read does not matter.
struct Leave {
  std::vector<Ready> announced;
};

using Message = std::variant<Hello, Welcome, Refused, Heartbeat, Ready, Contribution, ViewFailed, Leave>;

}  // namespace holdfast::protocol
