#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <holdfast/collectives/diloco/planner.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast::diloco {
namespace {

/// Time units of one layer: forward one, backward two, but the lowest layer needs no gradient of its input.
double layer_time(Workload const& workload) {
  return workload.step_s / (3.0 * workload.layers - 1.0);
}

/// From the beginning of a step to the end of a layer's backward pass, without waiting.
double release_time(Workload const& workload, int layer) {
  double const unit = layer_time(workload);
  return workload.layers * unit + unit * (2.0 * (workload.layers - layer) - (layer == 0 ? 1.0 : 0.0));
}

double transfer_time(Workload const& workload, double bits_per_s) {
  return workload.parameters * workload.bits_per_element / bits_per_s;
}

/// Whether a layer is exchanged after a step.
class Turns {
 public:
  explicit Turns(Workload const& workload)
      : method_(workload.method), schedule_(workload.schedule), fragments_(workload.schedule.fragments()) {
    for (int p = 0; p < fragments_; ++p) offsets_.push_back(schedule_.offset(p));
  }

  void begin_step(std::int64_t step) {
    is_all_ = method_ == Method::data_parallel || (method_ == Method::diloco && step % schedule_.inner_steps() == 0);
    exchanges_ = is_all_ ? 1 : 0;
    if (method_ != Method::streaming) return;
    is_on_.assign(static_cast<std::size_t>(fragments_), false);
    for (std::size_t p = 0; p < offsets_.size(); ++p)
      if ((step - offsets_[p]) % schedule_.period() == 0) {
        is_on_[p] = true;
        ++exchanges_;
      }
  }
  [[nodiscard]] bool exchanges(int layer) const {
    return method_ == Method::streaming ? is_on_[static_cast<std::size_t>(layer % fragments_)] : is_all_;
  }
  [[nodiscard]] int exchanges() const { return exchanges_; }

 private:
  Method method_;
  Schedule schedule_;
  int fragments_;
  std::vector<std::int64_t> offsets_;
  std::vector<bool> is_on_;
  bool is_all_ = false;
  int exchanges_ = 0;
};

void require(bool holds, char const* what, double value, char const* bounds) {
  if (!holds) throw Error(Errc::bad_argument, std::string(what) + ": " + std::to_string(value) + " must be " + bounds);
}

/// The least bandwidth at which a utilisation that grows with it reaches what is wanted.
template <class Utilisation>
double bisect(double wanted, Utilisation const& utilisation_at) {
  require(wanted > 0 && wanted < 1, "utilisation", wanted, "above 0 and below 1");
  constexpr int kHalvings = 60;
  double low = 1e6;
  double high = 1e14;
  while (low > 1e-6 && utilisation_at(low) >= wanted) low /= 1e3;  // small models on slow links
  while (high < 1e24 && utilisation_at(high) < wanted) high *= 1e3;
  for (int i = 0; i < kHalvings; ++i) {
    double const middle = std::sqrt(low * high);
    (utilisation_at(middle) >= wanted ? high : low) = middle;
  }
  return high;
}

}  // namespace

void Workload::require_sound() const {
  require(std::isfinite(parameters) && parameters > 0, "parameters", parameters, "above 0");
  require(layers >= 1 && layers <= 1 << 20, "layers", layers, "from 1 to 1048576");
  require(std::isfinite(step_s) && step_s > 0, "step time", step_s, "above 0");
  require(std::isfinite(bits_per_element) && bits_per_element >= 0, "bits per element", bits_per_element, "at least 0");
  require(std::isfinite(latency_s) && latency_s >= 0, "latency", latency_s, "at least 0");
  if (method == Method::streaming) schedule.require_overlap(overlap);
}

std::int64_t forecast_steps(Workload const& workload) {
  switch (workload.method) {
    case Method::data_parallel:
      return 40;
    case Method::diloco:
      return 2 * workload.schedule.inner_steps() + 1;
    case Method::streaming:
      break;
  }
  return 290;
}

Forecast forecast(Workload const& workload, double bits_per_s, std::int64_t steps) {
  workload.require_sound();
  require(bits_per_s > 0, "bandwidth", bits_per_s, "above 0");
  if (steps == 0) steps = forecast_steps(workload);
  auto const layers = static_cast<std::size_t>(workload.layers);
  double const unit = layer_time(workload);
  double const of_layer = transfer_time(workload, bits_per_s) / workload.layers;
  std::int64_t const overlap = workload.method == Method::streaming ? workload.overlap : 0;

  // Arrivals of the last steps, one line per step; 0 where nothing was sent.
  auto const lines = static_cast<std::size_t>(overlap + 1);
  std::vector<std::vector<double>> arrivals(lines, std::vector<double>(layers, 0.0));
  Turns turns(workload);
  double now = 0;
  double link_is_free = 0;
  Forecast result;
  for (std::int64_t step = 1; step <= steps; ++step) {
    // The line of step - 1 - overlap, which this step is the last to need.
    auto& line = arrivals[static_cast<std::size_t>(step % static_cast<std::int64_t>(lines))];
    for (std::size_t layer = 0; layer < layers; ++layer) now = std::max(now, line[layer]) + unit;
    turns.begin_step(step);
    result.exchanges += turns.exchanges();
    for (int layer = workload.layers - 1; layer >= 0; --layer) {
      now += layer == 0 ? unit : 2 * unit;
      line[static_cast<std::size_t>(layer)] = 0;
      if (!turns.exchanges(layer)) continue;
      link_is_free = std::max(link_is_free, now) + of_layer;
      line[static_cast<std::size_t>(layer)] = link_is_free + workload.latency_s;
    }
  }
  double const computing = static_cast<double>(steps) * workload.step_s;
  result.utilisation = computing / now;
  if (result.exchanges > 0)
    result.exposed_wait_s = std::max(0.0, now - computing) / static_cast<double>(result.exchanges);
  return result;
}

double closed_utilisation(Workload const& workload, double bits_per_s) {
  workload.require_sound();
  require(bits_per_s > 0, "bandwidth", bits_per_s, "above 0");
  double const unit = layer_time(workload);
  double const step = workload.step_s;
  double const layers = workload.layers;
  double const whole = transfer_time(workload, bits_per_s);
  double const of_layer = whole / layers;
  if (workload.method != Method::streaming) {
    double const hidden = (step - layers * unit) * (1 - 1 / layers);
    double const exposed = std::max(of_layer, whole - hidden) + workload.latency_s;
    double const steps = workload.method == Method::diloco ? static_cast<double>(workload.schedule.inner_steps()) : 1.0;
    return steps * step / (steps * step + exposed);
  }
  int const fragments = workload.schedule.fragments();
  double stalls = 0;
  std::vector<double> arrivals(static_cast<std::size_t>(workload.layers), 0.0);
  for (int p = 0; p < fragments; ++p) {
    double link = 0;
    for (int layer = workload.layers - 1; layer >= 0; --layer)
      if (layer % fragments == p) {
        link = std::max(link, release_time(workload, layer)) + of_layer;
        arrivals[static_cast<std::size_t>(layer)] = link + workload.latency_s;
      }
    double stall = 0;
    for (int layer = p; layer < workload.layers; layer += fragments) {
      double const needed = (1.0 + static_cast<double>(workload.overlap)) * step + layer * unit + stall;
      stall += std::max(0.0, arrivals[static_cast<std::size_t>(layer)] - needed);
    }
    stalls += stall;
  }
  double const between = static_cast<double>(workload.schedule.period()) / fragments * step;
  return between / std::max(between + stalls / fragments, whole / fragments);
}

double bandwidth_for(Workload const& workload, double utilisation, std::int64_t steps) {
  return bisect(utilisation, [&](double bits_per_s) { return forecast(workload, bits_per_s, steps).utilisation; });
}

double closed_bandwidth_for(Workload const& workload, double utilisation) {
  return bisect(utilisation, [&](double bits_per_s) { return closed_utilisation(workload, bits_per_s); });
}

double floor_bandwidth(Workload const& workload) {
  workload.require_sound();
  std::int64_t steps = 1;
  if (workload.method == Method::diloco) steps = workload.schedule.inner_steps();
  if (workload.method == Method::streaming) steps = workload.schedule.period();
  return workload.parameters * workload.bits_per_element / (static_cast<double>(steps) * workload.step_s);
}

std::optional<std::int64_t> smallest_overlap_without_stall(Workload workload, double bits_per_s) {
  constexpr double kHardlyAny = 0.999;
  if (workload.method != Method::streaming || floor_bandwidth(workload) > bits_per_s) return std::nullopt;
  for (workload.overlap = 0; workload.overlap < workload.schedule.period(); ++workload.overlap)
    if (closed_utilisation(workload, bits_per_s) >= kHardlyAny) return workload.overlap;
  return std::nullopt;
}

}  // namespace holdfast::diloco
