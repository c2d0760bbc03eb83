#pragma once

#include <cstdint>
#include <string_view>

#include <holdfast/collectives/codec.hpp>

namespace holdfast::diloco {

/// How members bring coded rows together. There is no third way: requantising partial sums around a ring adds its error
/// at every hop.
enum class ExchangePath {
  all_gather,  ///< everyone's unreduced codes to everyone; one message round
  two_phase,   ///< shards to owners, who reduce them and send the result in a second code; two message rounds
};

[[nodiscard]] std::string_view name(ExchangePath path);

/// What a path costs each replica.
struct ExchangeCost {
  ExchangePath path = ExchangePath::all_gather;
  double bits_per_element = 0;  ///< sent, of the fragment
  int message_rounds = 0;
};
[[nodiscard]] ExchangeCost exchange_cost(ExchangePath path, double codec_bits, double second_bits, int members);

/// The path by the number of members: all-gather up to two, two-phase from four. With three the one that is expected to
/// take less time on this link; all-gather unless two-phase is better by more than 5 %.
///
/// @param elements     of a fragment
/// @param bits_per_s   that a member can send; 0 when unknown
/// @param latency_s    of one message round
[[nodiscard]] ExchangeCost choose_path(double codec_bits, double second_bits, int members, double elements,
                                       double bits_per_s, double latency_s);

}  // namespace holdfast::diloco
