#pragma once

#include <cstdint>
#include <vector>

#include <holdfast/runtime/rounds.hpp>

namespace holdfast::protocol {

/// Where one stream stands at one member when it first promises. It cannot change until the next view.
struct StreamReport {
  StreamId stream{};
  std::uint64_t committed = 0;
  std::uint64_t held = 0;     ///< results are held up to here; `committed` or one more
  Digest committed_digest{};  ///< of round `committed`
  Digest held_digest{};       ///< of round `held`
  friend bool operator==(StreamReport const&, StreamReport const&) = default;
};

using Report = std::vector<StreamReport>;  ///< ascending streams

/// A stream's state after a round, as newcomer and members must agree on it.
struct StreamPosition {
  StreamId stream{};
  std::uint64_t round = 0;
  Digest state{};
  friend bool operator==(StreamPosition const&, StreamPosition const&) = default;
};

}  // namespace holdfast::protocol
