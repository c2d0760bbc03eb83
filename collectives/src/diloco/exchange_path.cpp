#include <holdfast/collectives/diloco/exchange_path.hpp>

namespace holdfast::diloco {

std::string_view name(ExchangePath path) {
  return path == ExchangePath::all_gather ? "allgather" : "twophase";
}

ExchangeCost exchange_cost(ExchangePath path, double codec_bits, double second_bits, int members) {
  double const others = members - 1;
  if (members < 2) return {path, 0, 0};
  if (path == ExchangePath::all_gather) return {path, others * codec_bits, 1};
  return {path, others / members * (codec_bits + second_bits), 2};
}

ExchangeCost choose_path(double codec_bits, double second_bits, int members, double elements, double bits_per_s,
                         double latency_s) {
  constexpr double kClearlyBetter = 0.95;
  auto const gather = exchange_cost(ExchangePath::all_gather, codec_bits, second_bits, members);
  auto const two_phase = exchange_cost(ExchangePath::two_phase, codec_bits, second_bits, members);
  if (members < 3) return gather;
  if (members > 3) return two_phase;
  auto const time = [&](ExchangeCost const& cost) {
    double const transfer = bits_per_s > 0 ? cost.bits_per_element * elements / bits_per_s : cost.bits_per_element;
    return transfer + (bits_per_s > 0 ? cost.message_rounds * latency_s : 0);
  };
  return time(two_phase) < kClearlyBetter * time(gather) ? two_phase : gather;
}

}  // namespace holdfast::diloco
