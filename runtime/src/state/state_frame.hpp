#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/rounds.hpp>

/// What a donor and a newcomer say to each other on their own connection: a header of fixed size, then a body.
namespace holdfast::state {

inline constexpr std::size_t kFrameHeaderBytes = 56;
inline constexpr std::size_t kMaxBodyBytes = std::size_t{1} << 20;

enum class FrameKind : std::uint8_t {
  request = 1,   ///< newcomer: I want a snapshot. Body: the token that the donor published
  manifest,      ///< donor: what the snapshot holds. Body: fields
  piece,         ///< donor: `bytes` at `offset` of part `index`
  snapshot_end,  ///< donor: every piece was sent
  round,         ///< donor: a round ended, with `index` results; without `flag` it failed by its rule and has none
  result,        ///< donor: `bytes` at `offset` of result `index` of the round before; `flag`: rules centre on it
  replayed,      ///< newcomer: this round is in its state, its results have been let go
  verify,        ///< newcomer: what is the digest of your state?
  digest,        ///< donor: {offset, total} is the digest of its state. Body: positions of its streams
};

struct Frame {
  FrameKind kind = FrameKind::request;
  bool flag = false;
  std::uint8_t dtype = 0;  ///< of a result, as the collectives count them
  std::uint32_t index = 0;
  std::uint32_t bytes = 0;  ///< of the body
  StreamId stream{};
  std::uint64_t round = 0;
  std::uint64_t offset = 0;
  std::uint64_t total = 0;  ///< bytes of the whole result
  std::uint64_t hash = 0;   ///< of the body
  friend bool operator==(Frame const&, Frame const&) = default;
};

void encode(Frame const& frame, std::span<std::byte, kFrameHeaderBytes> out);
/// @return corrupt_message for anything that encode() does not make
[[nodiscard]] Outcome<Frame> decode_frame(std::span<std::byte const, kFrameHeaderBytes> bytes);

[[nodiscard]] std::uint64_t hash_of(std::span<std::byte const> body);

/// The last round of each stream that a state includes.
using Positions = std::vector<RoundId>;
[[nodiscard]] std::vector<std::byte> encode(Positions const& positions);
[[nodiscard]] Outcome<Positions> decode_positions(std::span<std::byte const> bytes);

}  // namespace holdfast::state
