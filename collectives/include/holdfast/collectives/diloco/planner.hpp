#pragma once

#include <cstdint>
#include <optional>

#include <holdfast/collectives/diloco/schedule.hpp>

/// How much bandwidth a way of training needs, before it is bought.
///
/// The model: a step is the forward pass of L equal layers, then their backward pass, which takes twice as long. A
/// layer's exchange may start at the end of its backward pass, shares one first-come-first-served link with the others,
/// and must have arrived before the layer's forward pass of the next step (`overlap` steps later, for streaming).
/// Embeddings count as part of the layers.
///
/// Source: Douillard et al. 2025 (arXiv 2501.18512), table 4
namespace holdfast::diloco {

enum class Method {
  data_parallel,  ///< all layers at every step
  diloco,         ///< all layers at every period, then wait
  streaming,      ///< one fragment at a time, applied `overlap` steps later
};

struct Workload {
  Method method = Method::streaming;
  double parameters = 0;
  int layers = 1;
  double step_s = 0;            ///< computing alone
  double bits_per_element = 0;  ///< that a member sends for each parameter it exchanges: codec and path
  double latency_s = 0;         ///< added to each exchange; does not keep the link busy
  Schedule schedule{1, 1, Spacing::paper};
  std::int64_t overlap = 0;

  /// @throws Error bad_argument naming the value outside its bounds
  void require_sound() const;
};

/// What a run on a link looks like.
struct Forecast {
  double utilisation = 0;      ///< computing time / time
  double exposed_wait_s = 0;   ///< per exchange, on average
  std::int64_t exchanges = 0;  ///< whole model or fragment
};

/// Steps that a forecast covers unless told otherwise: 40, 2H + 1 or 290. Fixed, so that numbers can be compared.
[[nodiscard]] std::int64_t forecast_steps(Workload const& workload);

/// Plays the steps through, layer by layer. Transfers still open at the end are not waited for.
[[nodiscard]] Forecast forecast(Workload const& workload, double bits_per_s, std::int64_t steps = 0);
/// The closed form: within 1.5 % of the played thresholds for streaming, 3 % for the others, more at 99 %.
[[nodiscard]] double closed_utilisation(Workload const& workload, double bits_per_s);

/// The least bandwidth, in bit/s, that gives this utilisation.
/// @param utilisation  above 0 and below 1
[[nodiscard]] double bandwidth_for(Workload const& workload, double utilisation, std::int64_t steps = 0);
[[nodiscard]] double closed_bandwidth_for(Workload const& workload, double utilisation);

/// What has to pass in the long run, in bit/s: no overlap helps below it.
[[nodiscard]] double floor_bandwidth(Workload const& workload);

/// The smallest overlap with which computing hardly waits; none if no overlap below the period helps.
[[nodiscard]] std::optional<std::int64_t> smallest_overlap_without_stall(Workload workload, double bits_per_s);

}  // namespace holdfast::diloco
