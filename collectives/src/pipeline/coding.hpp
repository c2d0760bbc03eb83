#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <holdfast/collectives/codec.hpp>

#include "pipeline/shard_layout.hpp"

namespace holdfast::pipeline {

/// How a collective's float32 vectors travel: in pieces of Codec::kCutElements, each a payload of its own, one after
/// the other. A run of whole pieces can be cut out anywhere, so the same code serves any number of owners.
struct Coding {
  Codec rows;
  Codec results;  ///< of what owners send; unused where everyone reduces all rows
};

inline constexpr std::size_t kPieceElements = Codec::kCutElements;

/// Bytes of a run of pieces of which only the last may be short; also the place of element `elements` in a longer run.
[[nodiscard]] inline std::size_t coded_bytes(Codec const& codec, std::size_t elements) {
  return elements / kPieceElements * codec.payload_bytes(kPieceElements) +
         codec.payload_bytes(elements % kPieceElements);
}

/// As shard_layout, with whole pieces.
[[nodiscard]] inline std::vector<Shard> piece_layout(std::size_t elements, int owners) {
  auto shards = shard_layout((elements + kPieceElements - 1) / kPieceElements, owners, 1);
  for (auto& shard : shards) {
    std::size_t const begin = std::min(elements, shard.begin * kPieceElements);
    shard = {begin, std::min(elements - begin, shard.elements * kPieceElements)};
  }
  return shards;
}

/// Calls body(elements of the piece as a span, its payload) for all pieces.
template <class Value, class Bytes, class Body>
void for_each_piece(Codec const& codec, std::span<Value> values, Bytes* code, Body const& body) {
  for (std::size_t begin = 0; begin < values.size(); begin += kPieceElements) {
    auto const piece = values.subspan(begin, std::min(kPieceElements, values.size() - begin));
    std::span<Bytes> const payload(code, codec.payload_bytes(piece.size()));
    body(piece, payload);
    code += payload.size();
  }
}

/// @return whether all values were finite
inline bool encode_pieces(Codec const& codec, std::span<float const> values, std::byte* code) {
  bool finite = true;
  for_each_piece(codec, values, code, [&](std::span<float const> piece, std::span<std::byte> payload) {
    finite = codec.encode(piece, payload) == Codec::Encoded::finite && finite;
  });
  return finite;
}

/// Encodes values + decay * residual, and writes what the code lost of that to `next_residual`.
/// @return whether all values were finite; if not, `next_residual` means nothing
bool encode_with_feedback(Codec const& codec, std::span<float const> values, std::span<float const> residual,
                          float decay, std::byte* code, std::span<float> next_residual);

/// A piece that does not decode becomes NaN, which no rule takes for a value.
void decode_pieces(Codec const& codec, std::byte const* code, std::span<float> values);

/// sum += coefficient * decoded values.
/// @return whether all pieces could be decoded; those that could not are left out
[[nodiscard]] bool accumulate_pieces(Codec const& codec, std::byte const* code, float coefficient,
                                     std::span<float> sum);

}  // namespace holdfast::pipeline
