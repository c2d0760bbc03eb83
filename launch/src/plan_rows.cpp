#include "plan_rows.hpp"

#include <algorithm>
#include <cmath>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {
namespace {

using diloco::ExchangePath;
using diloco::Method;

constexpr double kChunkElements = 256.0 * 1024;

struct Sending {
  diloco::ExchangeCost cost;
  double bits_per_element = 0;  ///< headers included
};

Sending sending(PlanQuestion const& question, Method method, Codec const& codec, double elements) {
  bool const is_data_parallel = method == Method::data_parallel;
  double const bits = codec.bits_per_element();
  // Data parallelism sends its sums in the code of its gradients, through owners whatever the number of members.
  double const second = is_data_parallel ? bits : question.second.bits_per_element();
  Sending result;
  if (is_data_parallel) {
    result.cost = diloco::exchange_cost(ExchangePath::two_phase, bits, second, question.replicas);
  } else if (question.path) {
    result.cost = diloco::exchange_cost(*question.path, bits, second, question.replicas);
  } else {
    result.cost = diloco::choose_path(bits, second, question.replicas, elements, question.bits_per_s.value_or(0),
                                      question.latency_s);
  }
  double const others = question.replicas - 1;
  double const pieces = result.cost.path == ExchangePath::all_gather ? 1.0 : question.replicas;
  double const messages =
      result.cost.message_rounds * others * std::max(1.0, std::ceil(elements / pieces / kChunkElements));
  result.bits_per_element = result.cost.bits_per_element + 8 * question.overhead_bytes * messages / elements;
  return result;
}

PlanRow make_row(PlanQuestion const& question, std::string name, Method method, Codec const& codec,
                 std::int64_t overlap) {
  PlanRow row;
  row.method = std::move(name);
  row.codec = codec;
  row.workload.method = method;
  row.workload.parameters = question.parameters;
  row.workload.layers = question.layers;
  row.workload.step_s = question.step_s;
  row.workload.schedule = diloco::Schedule(question.inner_steps, question.fragments, question.spacing);
  row.workload.overlap = overlap;
  double const elements = method == Method::streaming ? question.parameters / question.fragments : question.parameters;
  auto const sent = sending(question, method, codec, elements);
  row.workload.bits_per_element = sent.bits_per_element;
  row.workload.latency_s = question.latency_s * std::max(1, sent.cost.message_rounds);
  row.path = sent.cost.path;
  row.path_factor = sent.cost.bits_per_element / codec.bits_per_element();

  row.bytes_per_sync = sent.bits_per_element * elements / 8;
  row.floor = diloco::floor_bandwidth(row.workload);
  row.bytes_per_step = row.floor * question.step_s / 8;
  // No stall while the transfer fits the overlap and the backward pass behind it.
  double const window = (static_cast<double>(overlap) + 1.0 / 3.0) * question.step_s;
  row.peak = 8 * row.bytes_per_sync / window;
  for (double const wanted : question.utilisations)
    row.thresholds.push_back(question.uses_closed_form ? diloco::closed_bandwidth_for(row.workload, wanted)
                                                       : diloco::bandwidth_for(row.workload, wanted));
  if (question.bits_per_s) {
    row.utilisation = utilisation_of(question, row, *question.bits_per_s);
    row.exposed_wait_s = diloco::forecast(row.workload, *question.bits_per_s).exposed_wait_s;
    row.smallest_overlap = diloco::smallest_overlap_without_stall(row.workload, *question.bits_per_s);
  }
  return row;
}

}  // namespace

double utilisation_of(PlanQuestion const& question, PlanRow const& row, double bits_per_s) {
  return question.uses_closed_form ? diloco::closed_utilisation(row.workload, bits_per_s)
                                   : diloco::forecast(row.workload, bits_per_s).utilisation;
}

std::vector<PlanRow> plan_rows(PlanQuestion const& question) {
  if (question.replicas < 2)
    throw Error(Errc::bad_argument, "replicas: " + std::to_string(question.replicas) +
                                        " must be at least 2: a single one has nobody to send to");
  std::vector<PlanRow> rows;
  auto const wants = [&](Method method) { return !question.method || *question.method == method; };
  if (wants(Method::data_parallel)) rows.push_back(make_row(question, "dp", Method::data_parallel, question.plain, 0));
  std::vector<Codec> codecs{question.codec};
  if (question.codec != question.plain && !question.method) codecs.push_back(question.plain);
  for (auto const& codec : codecs) {
    if (wants(Method::diloco)) rows.push_back(make_row(question, "diloco", Method::diloco, codec, 0));
    if (!wants(Method::streaming)) continue;
    if (!question.method || question.overlap == 0)
      rows.push_back(make_row(question, "streaming", Method::streaming, codec, 0));
    if (question.overlap > 0)
      rows.push_back(make_row(question, "streaming_overlap", Method::streaming, codec, question.overlap));
  }
  return rows;
}

std::optional<PlanSuggestion> suggest(PlanQuestion question) {
  if (!question.bits_per_s) return std::nullopt;
  constexpr std::int64_t kPeriods[] = {30, 50, 100, 200, 500};  // longer ones are untried
  constexpr double kRoom = 0.9;
  constexpr int kLayersPerFragment = 3;
  question.fragments = std::max(1, (question.layers + kLayersPerFragment / 2) / kLayersPerFragment);
  question.utilisations.clear();
  question.overlap = 1;
  for (std::int64_t const period : kPeriods) {
    question.inner_steps = period;
    auto const row = make_row(question, "", Method::streaming, question.codec,
                              std::min<std::int64_t>(1, std::max<std::int64_t>(0, period - 1)));
    if (row.floor > kRoom * *question.bits_per_s || !row.smallest_overlap) continue;
    question.overlap = std::max<std::int64_t>(1, *row.smallest_overlap);
    auto const chosen = make_row(question, "", Method::streaming, question.codec, question.overlap);
    return PlanSuggestion{period, question.fragments, question.overlap, chosen.path, chosen.utilisation};
  }
  return std::nullopt;
}

}  // namespace holdfast::launch
