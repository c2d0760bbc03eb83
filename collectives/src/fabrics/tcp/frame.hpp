#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/view.hpp>

#include "fabrics/fabric.hpp"

namespace holdfast::fabrics {

enum class FrameKind : std::uint8_t {
  hello = 1,         ///< first on a connection; sequence: token of the callee, offset: rank of the caller, extra: index
  welcome = 2,       ///< its answer
  announcement = 3,  ///< payload: the announcement
  row = 4,           ///< part of the sender's row of the receiver's shard
  result = 5,        ///< part of the sender's shard of the result; extra: its hash, in the frame that ends the shard
  small = 6,         ///< a small message, whole
  ready = 7,         ///< READY; sequence: round, payload: digest
};

/// What stands before the bytes of every message between two members. On the wire: 48 bytes, little endian.
struct FrameHeader {
  FrameKind kind = FrameKind::hello;
  std::uint8_t generation = 0;  ///< of a result: 1 or 2
  std::uint8_t stream = 0;      ///< below kMaxStreams
  ViewId view{};
  std::uint64_t sequence = 0;
  std::uint64_t offset = 0;  ///< of the payload in the row or shard
  std::uint64_t extra = 0;
  std::uint32_t bytes = 0;  ///< of the payload that follows

  [[nodiscard]] ExchangeKey key() const { return {stream, sequence}; }
};

inline constexpr std::size_t kFrameHeaderBytes = 48;
inline constexpr std::size_t kDigestBytes = 16;
/// Unit in which rows and results are dealt out to the connections of a pair; no frame crosses its end.
inline constexpr std::size_t kStripeBytes = std::size_t{256} << 10;
inline constexpr std::size_t kMostSmallBytes = std::size_t{64} << 20;

void encode(FrameHeader const& header, std::span<std::byte, kFrameHeaderBytes> bytes);

/// Checks all that can be told without knowing the exchange: magic, view, kind, stream, and the payload's length
/// against what the kind allows. What remains is checked against the plan before a byte is written.
/// @return corrupt_message saying what is wrong
[[nodiscard]] Outcome<FrameHeader> decode_frame(std::span<std::byte const, kFrameHeaderBytes> bytes, ViewId view);

}  // namespace holdfast::fabrics
