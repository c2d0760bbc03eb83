#include "pipeline/coding.hpp"

#include <array>
#include <limits>

#include <holdfast/collectives/diloco/outer_step.hpp>

namespace holdfast::pipeline {

bool encode_with_feedback(Codec const& codec, std::span<float const> values, std::span<float const> residual,
                          float decay, std::byte* code, std::span<float> next_residual) {
  bool finite = true;
  std::array<float, kPieceElements> corrected;
  std::size_t begin = 0;
  for_each_piece(codec, values, code, [&](std::span<float const> piece, std::span<std::byte> payload) {
    std::span<float> const sum(corrected.data(), piece.size());
    std::copy(piece.begin(), piece.end(), sum.begin());
    diloco::add_residual(residual.subspan(begin, piece.size()), decay, sum);
    finite = codec.encode(sum, payload) == Codec::Encoded::finite && finite;
    finite = diloco::coding_residual(codec, payload, sum, next_residual.subspan(begin, piece.size())) && finite;
    begin += piece.size();
  });
  return finite;
}

void decode_pieces(Codec const& codec, std::byte const* code, std::span<float> values) {
  for_each_piece(codec, values, code, [&](std::span<float> piece, std::span<std::byte const> payload) {
    if (!codec.decode(payload, piece)) std::fill(piece.begin(), piece.end(), std::numeric_limits<float>::quiet_NaN());
  });
}

bool accumulate_pieces(Codec const& codec, std::byte const* code, float coefficient, std::span<float> sum) {
  bool sound = true;
  for_each_piece(codec, sum, code, [&](std::span<float> piece, std::span<std::byte const> payload) {
    sound = codec.accumulate(payload, coefficient, piece).has_value() && sound;
  });
  return sound;
}

}  // namespace holdfast::pipeline
