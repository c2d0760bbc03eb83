#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/collectives/diloco/exchange_path.hpp>
#include <holdfast/collectives/diloco/planner.hpp>

namespace holdfast::launch {

/// What `holdfast plan` is asked.
struct PlanQuestion {
  double parameters = 0;
  int layers = 0;
  double step_s = 0;
  int replicas = 2;
  std::int64_t inner_steps = 100;
  int fragments = 8;
  diloco::Spacing spacing = diloco::Spacing::paper;
  std::int64_t overlap = 1;
  Codec codec = Codec::parse("e3m0_b256");
  Codec plain = Codec::parse("identity");  ///< of data parallelism and of the rows to compare with
  Codec second = Codec::parse("int8_b256");
  std::optional<diloco::ExchangePath> path;  ///< none: by the number of replicas
  double latency_s = 0;
  double overhead_bytes = 96;  ///< of one message
  std::optional<double> bits_per_s;
  std::vector<double> utilisations;
  std::optional<diloco::Method> method;  ///< none: all
  bool uses_closed_form = false;
  std::optional<std::int64_t> steps;  ///< of the whole run, for hours
};

/// A way of training with its needs.
struct PlanRow {
  std::string method;  ///< dp, diloco, streaming, streaming_overlap
  Codec codec = Codec::parse("identity");
  diloco::Workload workload;
  diloco::ExchangePath path = diloco::ExchangePath::all_gather;
  double path_factor = 0;  ///< f: bits sent per bit of code
  double bytes_per_sync = 0;
  double bytes_per_step = 0;
  std::vector<double> thresholds;  ///< bit/s, per wanted utilisation
  double floor = 0;                ///< bit/s
  double peak = 0;                 ///< bit/s while an exchange is on its way, without a stall
  // With a given bandwidth:
  double utilisation = 0;
  double exposed_wait_s = 0;  ///< per sync
  std::optional<std::int64_t> smallest_overlap;
};

[[nodiscard]] double utilisation_of(PlanQuestion const& question, PlanRow const& row, double bits_per_s);

/// Data parallelism first, then the rows with the codec asked for, then the same without one.
[[nodiscard]] std::vector<PlanRow> plan_rows(PlanQuestion const& question);

/// Settings of streaming that suit the link.
struct PlanSuggestion {
  std::int64_t inner_steps = 0;
  int fragments = 0;
  std::int64_t overlap = 0;
  diloco::ExchangePath path = diloco::ExchangePath::all_gather;
  double utilisation = 0;
};
/// None if the link is too slow for the longest period that is known to train well.
[[nodiscard]] std::optional<PlanSuggestion> suggest(PlanQuestion question);

}  // namespace holdfast::launch
