#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <utility>

#include <ATen/core/grad_mode.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/diloco/outer_step.hpp>
#include <holdfast/collectives/interop/torch.hpp>
#include <holdfast/optim/streaming_diloco.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>

#include "state_bytes.hpp"

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
  return failure.code == Errc::too_many_faulty_rows || failure.code == Errc::f_out_of_bounds ||
         failure.code == Errc::view_changed;
}

std::string text_of(DiLoCoWeights weights) {
  return weights == DiLoCoWeights::equal ? "equal" : weights == DiLoCoWeights::tokens ? "tokens" : "tokens_per_step";
}

/// floor(tokens^2 / steps), without a product that is too large.
std::uint64_t squared_per_step(std::uint64_t tokens, std::uint64_t steps) {
  if (steps == 0) return tokens;
  return tokens * (tokens / steps) + tokens * (tokens % steps) / steps;
}

/// Skips of one fragment in a row after which a user should know.
constexpr int kManySkips = 3;

}  // namespace

StreamingDiLoCoOptions StreamingDiLoCoOptions::diloco(std::int64_t inner_steps) {
  return StreamingDiLoCoOptions()
      .inner_steps(inner_steps)
      .fragments(1)
      .overlap(0)
      .codec("identity")
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
    std::vector<float> at_start;   // theta when the exchange started, with `carry`
    std::vector<float> last;       // D of the last exchange, with `eager`
    std::vector<float> last_own;   // this member's part in it
    std::uint64_t last_rows = 0;   // contributions to it
    std::uint64_t applied = 0;     // n
    std::uint64_t weight = 0;      // not yet part of an applied exchange
    std::uint64_t steps = 0;       // as the weight
    std::uint64_t skips = 0;       // in a row
  };
  struct InFlight {
    int fragment = 0;
    std::int64_t started = 0;
    std::int64_t due = 0;
    std::uint64_t weight = 0;
    std::uint64_t steps = 0;
    std::vector<float> result;    // D
    std::vector<float> residual;  // e as the exchange leaves it
    std::vector<float> own;       // this member's row as the others see it, with `eager`
    std::optional<Work> work;     // none: its result is in the outer parameters, and only the model's wait for theirs
    DiLoCoStep::Applied applied;
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
    CommunicatorOptions with;
    with.slow_members = options.slow_members();
    with.fabric = options.fabric();
    communicator.emplace(group, with);
    for (auto const& fragment : fragments)
      communicator->register_layout({}, elements_in(fragment), DType::float32, exchange);
    agree(model);
    if (communicator->world_size() > 1) required(exchange.rule.check_bounds(replicas, options.byzantine()));
    if (options.broadcast()) broadcast(model);
    start_bytes = communicator->sent_bytes();
    for (auto& fragment : fragments) {
      fragment.outer = gather(fragment);
      fragment.optimizer.assign(fragment.outer.size() * static_cast<std::size_t>(optimizer.state_vectors()), 0.0F);
      if (exchange.residual_decay > 0) fragment.residual.assign(fragment.outer.size(), 0.0F);
    }
    required(group.agree("outer parameters", {{"hash", hex(outer_hash())}}, start_deadline()));
    if (auto const warning = schedule.warning(); !warning.empty() && group.rank() == 0)
      log_warning("streaming DiLoCo: " + warning);
  }
  Impl(Impl const&) = delete;
  Impl& operator=(Impl const&) = delete;
  /// What is still on its way is given up with the communicator, which pending work keeps alive, before the memory that
  /// it would be written to.
  ~Impl() {
    for (auto& exchange_under_way : in_flight) exchange_under_way.work.reset();
    communicator.reset();
  }

  void prepare_exchange() {
    exchange.rule = Rule::parse(options.rule());
    if (!options.fallback().empty()) exchange.fallback = Rule::parse(options.fallback());
    exchange.byzantine = options.byzantine();
    exchange.codec = Codec::parse(options.codec());
    if (!options.result_codec().empty()) exchange.result_codec = Codec::parse(options.result_codec());
    constexpr double kUsualDecay = 0.95;
    double const decay = options.error_feedback().value_or(exchange.codec->needs_error_feedback() ? kUsualDecay : 0);
    if (!(decay >= 0 && decay <= 1))
      throw Error(Errc::bad_argument, "error_feedback is " + std::to_string(decay) + ", must be from 0 to 1");
    exchange.residual_decay = static_cast<float>(decay);
    if (options.min_contributors() < 1)
      throw Error(Errc::bad_argument,
                  "min_contributors is " + std::to_string(options.min_contributors()) + ", must be at least 1");
    if (options.eager() && options.carry())
      throw Error(Errc::bad_argument, "eager and carry exclude each other: an eager update waits for nothing");
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
    if (!options.fragment_list().empty()) {
      parts = options.fragment_list();
      if (static_cast<int>(parts.size()) != options.fragments())
        throw Error(Errc::bad_argument, "fragment_list has " + std::to_string(parts.size()) +
                                            " fragments, the option " + "fragments says " +
                                            std::to_string(options.fragments()));
    } else if (options.layer_of()) {
      int const count = layers.empty() ? 0 : *std::max_element(layers.begin(), layers.end()) + 1;
      parts = diloco::layer_fragments(elements, layers, count, options.fragments(), options.outside(),
                                      options.layer_pattern());
    } else {
      parts = diloco::balanced_fragments(elements, options.fragments());
    }
    bool const leaves_some_out = options.outside() == diloco::Outside::none && options.layer_of();
    if (!options.fragment_list().empty() || !leaves_some_out) diloco::require_partition(parts, elements, names);
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
                           {"result_codec", exchange.result_codec ? exchange.result_codec->text() : ""},
                           {"error_feedback", std::to_string(exchange.residual_decay)},
                           {"outer", optimizer.text()},
                           {"rule", exchange.rule.text()},
                           {"byzantine", std::to_string(options.byzantine())},
                           {"fallback", exchange.fallback ? exchange.fallback->text() : ""},
                           {"weights", text_of(options.weights())},
                           {"min_contributors", std::to_string(options.min_contributors())},
                           {"eager", options.eager() ? "true" : "false"},
                           {"broadcast", options.broadcast() ? "true" : "false"}};
    for (std::size_t p = 0; p < fragments.size(); ++p) {
      std::string ranges;
      for (auto const& range : fragments[p].ranges)
        ranges +=
            std::to_string(range.parameter) + ":" + std::to_string(range.begin) + "-" + std::to_string(range.end) + " ";
      settings.emplace_back("fragment " + std::to_string(p), ranges);
    }
    required(group.agree("streaming DiLoCo options", settings, start_deadline()));
    find_sites();
  }

  void find_sites() {
    auto const view = group.view();
    auto const& own = options.site();
    auto const names = group.all_gather("streaming DiLoCo sites", std::as_bytes(std::span(own)), start_deadline());
    if (!names) throw Error(names.error().code, names.error().message());
    std::set<std::string> different;
    replicas = 0;
    for (std::size_t rank = 0; rank < names->size() && rank < view.members.size(); ++rank) {
      std::string const name(reinterpret_cast<char const*>((*names)[rank].data()), (*names)[rank].size());
      sites->emplace(view.members[rank].id, name);
      if (name.empty() || different.insert(name).second) ++replicas;
    }
  }

  /// Whether a member speaks for its site among the members of a view: the lowest of it does.
  [[nodiscard]] std::function<bool(View const&)> contributes_if(bool wants) const {
    if (wants && options.site().empty()) return {};
    return [wants, sites = sites, self = group.self(), site = options.site()](View const& view) {
      if (!wants) return false;
      for (auto const& member : view.members) {
        auto const known = sites->find(member.id);
        if (known != sites->end() && known->second == site) return member.id == self;
      }
      return true;
    };
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

  [[nodiscard]] static std::size_t elements_in(State const& fragment) {
    std::size_t elements = 0;
    for (auto const& range : fragment.ranges) elements += range.end - range.begin;
    return elements;
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
    if (options.on_contribution()) options.on_contribution()(gradient);

    in_flight.emplace_back();
    auto& next = in_flight.back();
    next.fragment = index;
    next.started = step;
    next.due = step + (fragment.skips > kManySkips ? 0 : options.overlap());
    next.weight = fragment.weight;
    next.steps = fragment.steps;
    next.result.resize(own.size());
    next.residual = fragment.residual;
    auto with = exchange;
    with.residual = next.residual;
    std::uint64_t weight = weight_of(fragment);
    bool const wants = weight > 0 && schedule.starts(index, step, joined_at) &&
                       (!options.contributes() || options.contributes()(index, step));
    with.weight = static_cast<double>(std::max<std::uint64_t>(weight, 1));
    with.contributes = contributes_if(wants);
    with.redo_until = redo_until(next);
    with.condition = "fragment " + std::to_string(index) + " at step " + std::to_string(step);
    if (!options.eager())
      with.condition +=
          " from " + hex(diloco::hash_of(fragment.outer)) + " version " + std::to_string(fragment.applied);
    next.work = communicator->aggregate(std::span<float const>(gradient), std::span(next.result), with);
    if (options.eager()) apply_eagerly(fragment, next, std::move(gradient));
  }

  /// What this member counts for. Without a call of add_weight() all count the same.
  [[nodiscard]] std::uint64_t weight_of(State const& fragment) const {
    if (options.weights() == DiLoCoWeights::equal || !counts_weight) return 1;
    if (options.weights() == DiLoCoWeights::tokens) return fragment.weight;
    return squared_per_step(fragment.weight, fragment.steps);
  }

  [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> redo_until(InFlight const& next) const {
    double const grace = options.grace().value_or(options.overlap() > 0 ? 1.0 : 0.0);
    if (grace < 0 || step_s <= 0) return std::nullopt;
    double const steps = static_cast<double>(next.due - next.started) + grace;
    return std::chrono::steady_clock::now() +
           std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(steps * step_s));
  }

  /// D(t - H) + (y(t) - y(t - H)) / M in place of the mean that is on its way.
  void apply_eagerly(State& fragment, InFlight& next, std::vector<float> gradient) {
    if (!fragment.residual.empty()) diloco::add_residual(fragment.residual, exchange.residual_decay, gradient);
    if (!diloco::through_codec(*exchange.codec, gradient)) return;  // not finite: a fault of this contribution
    fragment.last.resize(gradient.size());
    fragment.last_own.resize(gradient.size());
    auto const rows = static_cast<float>(fragment.last_rows > 0 ? fragment.last_rows
                                                                : static_cast<std::uint64_t>(std::max(replicas, 1)));
    std::vector<float> refreshed(gradient.size());
    for (std::size_t i = 0; i < gradient.size(); ++i)
      refreshed[i] = fragment.last[i] + (gradient[i] - fragment.last_own[i]) / rows;
    next.own = std::move(gradient);
    optimizer.apply(refreshed, fragment.outer, fragment.optimizer, fragment.applied++);
    take_over(fragment);
  }

  /// Waits for the exchange and takes its result into the outer parameters.
  Outcome<void> settle(InFlight& exchanged, Deadline deadline) {
    if (!exchanged.work) return {};
    auto outcome = exchanged.work->wait(deadline);
    auto const enough = static_cast<std::size_t>(options.min_contributors());
    if (outcome && outcome->contributors.size() < enough) {
      auto const found = outcome->contributors.size();
      outcome = fail(Errc::too_many_faulty_rows,
                     std::to_string(found) + " contributions where min_contributors is " + std::to_string(enough));
    }
    if (!outcome && !is_skip(outcome.error())) return fail(outcome.error());
    exchanged.work.reset();
    auto& fragment = fragments[static_cast<std::size_t>(exchanged.fragment)];
    auto& applied = exchanged.applied;
    applied.fragment = exchanged.fragment;
    applied.started = exchanged.started;
    applied.is_skipped = !outcome;
    if (outcome) {
      take_in(fragment, exchanged, *outcome);
    } else {
      applied.reason = outcome.error().message();
      ++fragment.skips;
      std::string text = "streaming DiLoCo: fragment " + std::to_string(exchanged.fragment) + " of step " +
                         std::to_string(exchanged.started) + " is skipped: " + applied.reason;
      if (fragment.skips > kManySkips)
        text += "; " + std::to_string(fragment.skips) + " skips in a row: the next exchange is waited for";
      log_warning(text);
    }
    applied.outer_hash = diloco::hash_of(fragment.outer);
    return {};
  }

  void take_in(State& fragment, InFlight& exchanged, Reduction const& reduction) {
    auto& applied = exchanged.applied;
    fragment.skips = 0;
    applied.contributors = reduction.contributors.size();
    applied.weight = reduction.weight;
    applied.sent_bytes = reduction.sent_bytes;
    applied.has_contributed = std::find(reduction.contributing_members.begin(), reduction.contributing_members.end(),
                                        speaker(reduction)) != reduction.contributing_members.end();
    if (options.eager()) {
      fragment.last = std::move(exchanged.result);
      fragment.last_own = std::move(exchanged.own);
      fragment.last_rows = applied.contributors;
    } else {
      optimizer.apply(exchanged.result, fragment.outer, fragment.optimizer, fragment.applied++);
    }
    if (!applied.has_contributed) return;
    fragment.residual = std::move(exchanged.residual);
    fragment.weight -= exchanged.weight;
    fragment.steps -= exchanged.steps;
  }

  /// The member whose contribution was this one's, too.
  [[nodiscard]] MemberId speaker(Reduction const& reduction) const {
    if (!options.site().empty())
      for (auto const member : reduction.contributing_members) {
        auto const known = sites->find(member);
        if (known != sites->end() && known->second == options.site()) return member;
      }
    return group.self();
  }

  void record(DiLoCoStep::Applied const& applied) {
    group.events().record("outer_step", {{"fragment", std::int64_t{applied.fragment}},
                                         {"started", applied.started},
                                         {"step", step},
                                         {"is_skipped", applied.is_skipped},
                                         {"contributors", static_cast<std::int64_t>(applied.contributors)},
                                         {"weight", applied.weight},
                                         {"has_contributed", applied.has_contributed},
                                         {"exposed_wait_ms", 1e3 * applied.exposed_wait_s},
                                         {"sent_bytes", static_cast<std::int64_t>(applied.sent_bytes)},
                                         {"outer_hash", hex(applied.outer_hash)}});
  }

  Outcome<DiLoCoStep> apply_due(Deadline deadline, bool all) {
    // Always as they started: one that is waited for at once brings those before it along.
    auto const is_due = [&](InFlight const& exchanged) { return all || exchanged.due <= step; };
    while (std::any_of(in_flight.begin(), in_flight.end(), is_due)) {
      auto const front = in_flight.begin();
      auto const begin = std::chrono::steady_clock::now();
      auto const settled = settle(*front, deadline);
      exposed_wait_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (!settled) return fail(settled.error());
      front->applied.exposed_wait_s = std::exchange(exposed_wait_s, 0);
      if (!front->applied.is_skipped && !options.eager())
        take_over(fragments[static_cast<std::size_t>(front->fragment)]);
      record(front->applied);
      report.applied.push_back(front->applied);
      in_flight.pop_front();
    }
    return std::exchange(report, {});
  }

  /// From the outer parameters into the model's.
  void take_over(State& fragment) {
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
    measure_step();
    report.step = ++step;
    report.started.clear();
    for (auto& fragment : fragments) ++fragment.steps;
    for (int const index : schedule.starting(step))
      if (!fragments[static_cast<std::size_t>(index)].outer.empty()) {
        start(index);
        report.started.push_back(index);
      }
    return resume(step_deadline(), false);
  }

  void measure_step() {
    if (last_end) {
      constexpr double kMemory = 0.8;
      double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - *last_end).count();
      step_s = step_s == 0 ? seconds : kMemory * step_s + (1 - kMemory) * seconds;
    }
  }

  Outcome<DiLoCoStep> resume(Deadline deadline, bool all) {
    report.step = step;
    auto outcome = apply_due(deadline, all);
    is_waiting = !outcome && outcome.error().code == Errc::pending;
    last_end = std::chrono::steady_clock::now();
    return outcome;
  }

  Outcome<void> settle(Deadline deadline) {
    for (auto& exchanged : in_flight)
      if (auto settled = settle(exchanged, deadline); !settled) return settled;
    return {};
  }

  // --- state -----------------------------------------------------------------------------------------------------

  void settle_for_snapshot() {
    auto const settled = settle(step_deadline());
    if (!settled)
      throw Error(settled.error().code,
                  "an exchange in flight does not end, so there is no state to keep: " + settled.error().message());
  }

  [[nodiscard]] std::vector<std::byte> save_outer() {
    settle_for_snapshot();
    optim::StateWriter writer;
    writer.number(step);
    for (auto const& fragment : fragments) {
      writer.number(fragment.applied);
      writer.number(fragment.skips);
      writer.vector(std::span<float const>(fragment.outer));
      writer.vector(std::span<float const>(fragment.optimizer));
    }
    return writer.take();
  }

  Outcome<void> load_outer(std::span<std::byte const> bytes) {
    for (auto const& exchanged : in_flight)
      if (exchanged.work) return fail(Errc::pending, "an exchange is in flight; settle() before the state is replaced");
    optim::StateReader reader(bytes);
    auto const new_step = reader.number<std::int64_t>();
    auto loaded = fragments;
    for (auto& fragment : loaded) {
      fragment.applied = reader.number<std::uint64_t>();
      fragment.skips = reader.number<std::uint64_t>();
      reader.vector(std::span(fragment.outer));
      reader.vector(std::span(fragment.optimizer));
      std::fill(fragment.residual.begin(), fragment.residual.end(), 0.0F);
      fragment.weight = fragment.steps = 0;
    }
    if (!reader.is_complete() || new_step < 0)
      return fail(Errc::mismatch, "these are not the outer parameters of this model with these fragments");
    fragments = std::move(loaded);
    in_flight.clear();
    step = joined_at = new_step;
    for (auto& fragment : fragments) scatter(fragment, fragment.outer);
    return {};
  }

  [[nodiscard]] std::vector<std::byte> save_own() {
    settle_for_snapshot();
    optim::StateWriter writer;
    writer.number(joined_at);
    writer.number(static_cast<std::uint8_t>(counts_weight));
    for (auto const& parameter : parameters)
      writer.vector(std::span(static_cast<std::byte const*>(parameter.data_ptr()), parameter.nbytes()));
    for (auto const& fragment : fragments) {
      writer.number(fragment.weight);
      writer.number(fragment.steps);
      writer.number(fragment.last_rows);
      for (auto const* const values : {&fragment.residual, &fragment.at_start, &fragment.last, &fragment.last_own})
        writer.vector(std::span<float const>(*values));
    }
    writer.number(static_cast<std::uint64_t>(in_flight.size()));
    for (auto const& exchanged : in_flight) {
      auto const& applied = exchanged.applied;
      writer.number(exchanged.fragment);
      writer.number(exchanged.started);
      writer.number(exchanged.due);
      writer.number(static_cast<std::uint8_t>(applied.is_skipped));
      writer.number(static_cast<std::uint64_t>(applied.contributors));
      writer.number(applied.weight);
      writer.number(static_cast<std::uint8_t>(applied.has_contributed));
      writer.number(applied.sent_bytes);
      writer.number(applied.outer_hash);
    }
    return writer.take();
  }

  Outcome<void> load_own(std::span<std::byte const> bytes) {
    optim::StateReader reader(bytes);
    auto const new_joined = reader.number<std::int64_t>();
    bool const new_counts_weight = reader.number<std::uint8_t>() != 0;
    std::vector<std::vector<std::byte>> values;
    for (auto const& parameter : parameters) {
      values.emplace_back(parameter.nbytes());
      reader.vector(std::span(values.back()));
    }
    auto loaded = fragments;
    for (auto& fragment : loaded) {
      fragment.weight = reader.number<std::uint64_t>();
      fragment.steps = reader.number<std::uint64_t>();
      fragment.last_rows = reader.number<std::uint64_t>();
      reader.vector(std::span(fragment.residual));
      for (auto* const list : {&fragment.at_start, &fragment.last, &fragment.last_own}) {
        *list = reader.vector<float>(fragment.outer.size());
        if (!list->empty() && list->size() != fragment.outer.size()) return not_mine();
      }
    }
    std::deque<InFlight> under_way;
    auto const count = reader.number<std::uint64_t>();
    for (std::uint64_t i = 0; i < count && reader.is_good(); ++i) {
      auto& exchanged = under_way.emplace_back();
      auto& applied = exchanged.applied;
      applied.fragment = exchanged.fragment = reader.number<int>();
      applied.started = exchanged.started = reader.number<std::int64_t>();
      exchanged.due = reader.number<std::int64_t>();
      applied.is_skipped = reader.number<std::uint8_t>() != 0;
      applied.contributors = static_cast<std::size_t>(reader.number<std::uint64_t>());
      applied.weight = reader.number<double>();
      applied.has_contributed = reader.number<std::uint8_t>() != 0;
      applied.sent_bytes = reader.number<std::uint64_t>();
      applied.outer_hash = reader.number<std::uint64_t>();
      if (exchanged.fragment < 0 || exchanged.fragment >= static_cast<int>(fragments.size())) return not_mine();
    }
    if (!reader.is_complete()) return not_mine();
    fragments = std::move(loaded);
    in_flight = std::move(under_way);
    joined_at = new_joined;
    counts_weight = new_counts_weight;
    at::NoGradGuard const no_grad;
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (!values[i].empty()) std::memcpy(parameters[i].data_ptr(), values[i].data(), values[i].size());
    return {};
  }
  [[nodiscard]] static tl::unexpected<Failure> not_mine() {
    return fail(Errc::mismatch, "this is not a member's state of this model with these fragments");
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
  std::int64_t joined_at = 0;
  bool counts_weight = false;  // add_weight() has been called
  DiLoCoStep report;           // of the step that is not over
  double exposed_wait_s = 0;
  double step_s = 0;  // what an inner step takes, without waiting
  std::optional<std::chrono::steady_clock::time_point> last_end;
  bool is_waiting = false;
  std::uint64_t start_bytes = 0;
  int replicas = 1;  // that contribute: members, or sites
  // Shared with exchanges, which ask on another thread.
  std::shared_ptr<std::map<MemberId, std::string>> sites = std::make_shared<std::map<MemberId, std::string>>();
  std::deque<InFlight> in_flight;  // in the order of their starts; moved about, but never the memory of their vectors
  std::optional<Communicator> communicator;
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
  impl_->counts_weight = true;
  for (auto& fragment : impl_->fragments) fragment.weight += tokens;
}

Outcome<void> StreamingDiLoCo::settle(Deadline deadline) {
  return impl_->settle(deadline);
}

void StreamingDiLoCo::register_state(StateRegistry& registry, std::string const& name) {
  auto* const impl = impl_.get();
  // Eager updates make outer parameters differ between members.
  registry.add(
      name + ".outer", impl->options.eager() ? Sharing::own : Sharing::replicated,
      [impl] { return impl->save_outer(); },
      [impl](std::span<std::byte const> bytes) { return impl->load_outer(bytes); });
  registry.add(
      name + ".own", Sharing::own, [impl] { return impl->save_own(); },
      [impl](std::span<std::byte const> bytes) { return impl->load_own(bytes); });
}

std::int64_t StreamingDiLoCo::joined() const {
  return impl_->joined_at;
}
std::int64_t StreamingDiLoCo::steps() const {
  return impl_->step;
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
std::uint64_t StreamingDiLoCo::sent_bytes() const {
  return impl_->communicator->sent_bytes() - impl_->start_bytes;
}
std::uint64_t StreamingDiLoCo::start_bytes() const {
  return impl_->start_bytes;
}
diloco::Schedule const& StreamingDiLoCo::schedule() const {
  return impl_->schedule;
}
StreamingDiLoCoOptions const& StreamingDiLoCo::options() const {
  return impl_->options;
}

}  // namespace holdfast
