#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include <ATen/core/grad_mode.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/diloco/outer_step.hpp>
#include <holdfast/collectives/interop/torch.hpp>
#include <holdfast/optim/streaming_diloco.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast {
namespace {

void required(Outcome<void> const& outcome) {
  if (!outcome) throw Error(outcome.error().code, outcome.error().message());
}

std::string hex(std::uint64_t number) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

/// A verdict that is the same at all members and costs them nothing but this exchange.
bool is_skip(Failure const& failure) {
  return failure.code == Errc::too_many_faulty_rows || failure.code == Errc::f_out_of_bounds;
}

}  // namespace

StreamingDiLoCoOptions StreamingDiLoCoOptions::diloco(std::int64_t inner_steps) {
  return StreamingDiLoCoOptions()
      .inner_steps(inner_steps)
      .fragments(1)
      .overlap(0)
      .codec("identity")
      .result_codec("identity")
      .outer("nesterov(lr=0.7, momentum=0.9)");
}

StreamingDiLoCoOptions StreamingDiLoCoOptions::local_sgd(std::int64_t inner_steps) {
  return diloco(inner_steps).outer("sgd(lr=1)");
}

struct StreamingDiLoCo::Impl {
  /// A fragment's outer side.
  struct State {
    std::vector<diloco::ParameterRange> ranges;
    std::vector<float> outer;      // W
    std::vector<float> optimizer;  // v
    std::vector<float> residual;   // e; empty without error feedback
    std::vector<float> result;     // D of the exchange in flight
    std::vector<float> at_start;   // theta when the exchange started, with `carry`
    std::uint64_t applied = 0;     // n
    std::uint64_t weight = 0;      // not yet part of an applied exchange
  };
  struct InFlight {
    int fragment = 0;
    std::int64_t started = 0;
    std::uint64_t weight = 0;
    Work work;
  };

  Impl(Group const& of, ModelTensors const& model, StreamingDiLoCoOptions const& given)
      : group(of),
        options(given),
        schedule(given.inner_steps(), given.fragments(), given.spacing()),
        optimizer(diloco::OuterOptimizer::parse(given.outer())) {
    schedule.require_overlap(options.overlap());
    diloco::require_merge_factor(options.merge());
    prepare_exchange();
    take_parameters(model);
    communicator.emplace(group);
    if (communicator->world_size() > 1)
      required(exchange.rule.check_bounds(communicator->world_size(), options.byzantine()));
    agree(model);
    if (options.broadcast()) broadcast(model);
    for (auto& fragment : fragments) {
      fragment.outer = gather(fragment);
      fragment.optimizer.assign(fragment.outer.size() * static_cast<std::size_t>(optimizer.state_vectors()), 0.0F);
      if (exchange.residual_decay > 0) fragment.residual.assign(fragment.outer.size(), 0.0F);
    }
    required(group.agree("outer parameters", {{"hash", hex(outer_hash())}}, start_deadline()));
    if (auto const warning = schedule.warning(); !warning.empty() && group.rank() == 0)
      log_warning("streaming DiLoCo: " + warning);
  }

  void prepare_exchange() {
    exchange.rule = Rule::parse(options.rule());
    exchange.byzantine = options.byzantine();
    exchange.codec = Codec::parse(options.codec());
    exchange.result_codec = Codec::parse(options.result_codec());
    constexpr double kUsualDecay = 0.95;
    double const decay = options.error_feedback().value_or(exchange.codec->needs_error_feedback() ? kUsualDecay : 0);
    if (!(decay >= 0 && decay <= 1))
      throw Error(Errc::bad_argument, "error_feedback is " + std::to_string(decay) + ", must be from 0 to 1");
    exchange.residual_decay = static_cast<float>(decay);
  }

  void take_parameters(ModelTensors const& model) {
    std::vector<std::uint64_t> elements;
    std::vector<std::string> names;
    std::vector<int> layers;
    for (auto const& [name, tensor] : model.parameters) {
      if (!tensor.requires_grad()) continue;
      if (!tensor.is_floating_point() || !tensor.device().is_cpu() || !tensor.is_contiguous())
        throw Error(Errc::bad_argument, "parameter " + name + " must be contiguous floating point on the CPU");
      parameters.push_back(tensor.detach());
      elements.push_back(static_cast<std::uint64_t>(tensor.numel()));
      names.push_back(name);
      if (options.layer_of()) layers.push_back(options.layer_of()(name));
    }
    std::vector<diloco::Fragment> parts;
    if (options.layer_of()) {
      int const count = layers.empty() ? 0 : *std::max_element(layers.begin(), layers.end()) + 1;
      parts = diloco::layer_fragments(elements, layers, count, options.fragments(), options.outside(),
                                      options.layer_pattern());
    } else {
      parts = diloco::balanced_fragments(elements, options.fragments());
    }
    if (options.outside() != diloco::Outside::none || !options.layer_of())
      diloco::require_partition(parts, elements, names);
    for (auto& part : parts) {
      State state;
      state.ranges = std::move(part.ranges);
      fragments.push_back(std::move(state));
    }
  }

  void agree(ModelTensors const& model) {
    Group::Fields fields;
    for (auto const& [name, tensor] : model.parameters)
      fields.emplace_back("parameter " + name, std::string(c10::toString(tensor.scalar_type())) + " of " +
                                                   std::to_string(tensor.numel()) + " elements" +
                                                   (tensor.requires_grad() ? "" : ", frozen"));
    required(group.agree("model", fields, start_deadline()));
    Group::Fields settings{{"inner_steps", std::to_string(options.inner_steps())},
                           {"fragments", std::to_string(options.fragments())},
                           {"spacing", options.spacing() == diloco::Spacing::paper ? "paper" : "exact"},
                           {"codec", exchange.codec->text()},
                           {"result_codec", exchange.result_codec->text()},
                           {"error_feedback", std::to_string(exchange.residual_decay)},
                           {"outer", optimizer.text()},
                           {"rule", exchange.rule.text()},
                           {"byzantine", std::to_string(options.byzantine())}};
    for (std::size_t p = 0; p < fragments.size(); ++p) {
      std::string ranges;
      for (auto const& range : fragments[p].ranges)
        ranges +=
            std::to_string(range.parameter) + ":" + std::to_string(range.begin) + "-" + std::to_string(range.end) + " ";
      settings.emplace_back("fragment " + std::to_string(p), ranges);
    }
    required(group.agree("streaming DiLoCo options", settings, start_deadline()));
  }

  void broadcast(ModelTensors const& model) {
    if (communicator->world_size() == 1) return;
    for (auto const* const list : {&model.parameters, &model.buffers})
      for (auto const& [name, tensor] : *list) {
        at::Tensor const dense = tensor.detach().contiguous();
        if (dense.numel() == 0) continue;
        MutableBuffer const buffer(dense.data_ptr(), static_cast<std::size_t>(dense.numel()),
                                   interop::dtype_of(dense.scalar_type()));
        auto const sent = communicator->broadcast(buffer, 0).wait(start_deadline());
        if (!sent) throw Error(sent.error().code, sent.error().message());
        if (dense.data_ptr() != tensor.data_ptr()) tensor.detach().copy_(dense);
      }
  }

  // theta of a fragment, as float32.
  [[nodiscard]] std::vector<float> gather(State const& fragment) const {
    std::vector<float> values;
    for (auto const& range : fragment.ranges) {
      at::Tensor const part = elements_of(range).to(at::kFloat);
      auto const* const data = part.data_ptr<float>();
      values.insert(values.end(), data, data + part.numel());
    }
    return values;
  }
  void scatter(State const& fragment, std::vector<float>& values) const {
    at::NoGradGuard const no_grad;
    std::size_t next = 0;
    for (auto const& range : fragment.ranges) {
      auto const count = static_cast<std::size_t>(range.end - range.begin);
      elements_of(range).copy_(at::from_blob(values.data() + next, {static_cast<std::int64_t>(count)}, at::kFloat));
      next += count;
    }
  }
  [[nodiscard]] at::Tensor elements_of(diloco::ParameterRange const& range) const {
    return parameters[range.parameter].view({-1}).slice(0, static_cast<std::int64_t>(range.begin),
                                                        static_cast<std::int64_t>(range.end));
  }

  void start(int index) {
    auto& fragment = fragments[static_cast<std::size_t>(index)];
    auto const own = gather(fragment);
    if (options.carry()) fragment.at_start = own;
    std::vector<float> gradient(own.size());
    diloco::outer_gradient(fragment.outer, own, gradient);
    fragment.result.resize(own.size());
    auto with = exchange;
    with.residual = fragment.residual;
    with.weight = static_cast<double>(std::max<std::uint64_t>(fragment.weight, 1));
    with.condition = "fragment " + std::to_string(index) + " at step " + std::to_string(step) + " from " +
                     hex(diloco::hash_of(fragment.outer)) + " version " + std::to_string(fragment.applied);
    in_flight.push_back({index, step, fragment.weight,
                         communicator->aggregate(std::span<float const>(gradient), std::span(fragment.result), with)});
  }

  Outcome<DiLoCoStep> apply_due(Deadline deadline, bool all) {
    while (!in_flight.empty() && (all || in_flight.front().started + options.overlap() <= step)) {
      auto const& front = in_flight.front();
      auto const begin = std::chrono::steady_clock::now();
      auto const outcome = front.work.wait(deadline);
      exposed_wait_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (!outcome && !is_skip(outcome.error())) return fail(outcome.error());
      DiLoCoStep::Applied applied{front.fragment, front.started, !outcome, 0, std::exchange(exposed_wait_s, 0), 0, 0};
      auto& fragment = fragments[static_cast<std::size_t>(front.fragment)];
      if (outcome) {
        applied.contributors = outcome->contributors.size();
        applied.sent_bytes = outcome->sent_bytes;
        apply(fragment);
        bool const contributed = std::find(outcome->contributors.begin(), outcome->contributors.end(),
                                           communicator->rank()) != outcome->contributors.end();
        if (contributed) fragment.weight -= front.weight;
      } else {
        log_warning("streaming DiLoCo: fragment " + std::to_string(front.fragment) + " of step " +
                    std::to_string(front.started) + " is skipped: " + outcome.error().message());
      }
      applied.outer_hash = diloco::hash_of(fragment.outer);
      report.applied.push_back(applied);
      in_flight.pop_front();
    }
    return std::exchange(report, {});
  }

  void apply(State& fragment) {
    optimizer.apply(fragment.result, fragment.outer, fragment.optimizer, fragment.applied++);
    if (!options.carry() && options.merge() == 1) return;
    auto own = gather(fragment);
    if (options.carry()) {
      diloco::merge_carrying(fragment.outer, fragment.at_start, own);
    } else {
      diloco::merge(static_cast<float>(options.merge()), fragment.outer, own);
    }
    scatter(fragment, own);
  }

  Outcome<DiLoCoStep> advance() {
    if (is_waiting)
      throw Error(Errc::bad_argument, "a step ran while an exchange is pending; call resume() until it ends");
    report.step = ++step;
    report.started.clear();
    for (int const index : schedule.starting(step))
      if (!fragments[static_cast<std::size_t>(index)].outer.empty()) {
        start(index);
        report.started.push_back(index);
      }
    return resume(step_deadline(), false);
  }

  Outcome<DiLoCoStep> resume(Deadline deadline, bool all) {
    report.step = step;
    auto outcome = apply_due(deadline, all);
    is_waiting = !outcome && outcome.error().code == Errc::pending;
    return outcome;
  }

  [[nodiscard]] std::uint64_t outer_hash() const {
    std::vector<float> all;
    for (auto const& fragment : fragments) all.insert(all.end(), fragment.outer.begin(), fragment.outer.end());
    return diloco::hash_of(all);
  }

  [[nodiscard]] Deadline start_deadline() const { return Deadline::after(group.config().start_timeout); }
  [[nodiscard]] Deadline step_deadline() const {
    return Deadline::after(options.timeout().count() > 0 ? options.timeout() : group.config().op_timeout);
  }

  Group group;
  StreamingDiLoCoOptions options;
  diloco::Schedule schedule;
  diloco::OuterOptimizer optimizer;
  AggregateOptions exchange;
  std::vector<at::Tensor> parameters;
  std::vector<State> fragments;
  std::int64_t step = 0;
  DiLoCoStep report;  // of the step that is not over
  double exposed_wait_s = 0;
  bool is_waiting = false;
  std::optional<Communicator> communicator;  // after the fragments, into which its exchanges write
  std::deque<InFlight> in_flight;            // in the order of their starts
};

StreamingDiLoCo::StreamingDiLoCo(Group const& group, ModelTensors const& model, StreamingDiLoCoOptions const& options)
    : impl_(std::make_unique<Impl>(group, model, options)) {}
StreamingDiLoCo::StreamingDiLoCo(StreamingDiLoCo&&) noexcept = default;
StreamingDiLoCo& StreamingDiLoCo::operator=(StreamingDiLoCo&&) noexcept = default;
StreamingDiLoCo::~StreamingDiLoCo() = default;

Outcome<DiLoCoStep> StreamingDiLoCo::step(torch::optim::Optimizer& inner) {
  inner.step();
  return advance();
}
Outcome<DiLoCoStep> StreamingDiLoCo::advance() {
  return impl_->advance();
}
Outcome<DiLoCoStep> StreamingDiLoCo::resume(Deadline deadline) {
  return impl_->resume(deadline, false);
}
Outcome<DiLoCoStep> StreamingDiLoCo::drain() {
  return impl_->resume(impl_->step_deadline(), true);
}

void StreamingDiLoCo::add_weight(std::uint64_t tokens) {
  for (auto& fragment : impl_->fragments) fragment.weight += tokens;
}

StreamingDiLoCo::OuterParameters::OuterParameters(StreamingDiLoCo& diloco) : diloco_(diloco) {
  for (auto& fragment : diloco_.impl_->fragments) {
    own_.push_back(diloco_.impl_->gather(fragment));
    diloco_.impl_->scatter(fragment, fragment.outer);
  }
}
StreamingDiLoCo::OuterParameters::~OuterParameters() {
  auto const& fragments = diloco_.impl_->fragments;
  for (std::size_t p = 0; p < fragments.size(); ++p) diloco_.impl_->scatter(fragments[p], own_[p]);
}
StreamingDiLoCo::OuterParameters StreamingDiLoCo::outer_parameters() {
  return OuterParameters(*this);
}

std::uint64_t StreamingDiLoCo::outer_hash() const {
  return impl_->outer_hash();
}
diloco::Schedule const& StreamingDiLoCo::schedule() const {
  return impl_->schedule;
}
StreamingDiLoCoOptions const& StreamingDiLoCo::options() const {
  return impl_->options;
}

}  // namespace holdfast
