#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/interop/torch.hpp>
#include <holdfast/collectives/state_sharing.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "backup_statistics.hpp"
#include "bucket_plan.hpp"
#include "state/parts.hpp"

namespace holdfast {
namespace {

[[noreturn]] void raise(Failure const& failure) {
  throw Error(failure.code, failure.message());
}

template <typename T>
T required(Outcome<T> outcome) {
  if (!outcome) raise(outcome.error());
  if constexpr (!std::is_void_v<T>) return std::move(*outcome);
}

std::string described(at::Tensor const& tensor) {
  std::string text = c10::toString(tensor.scalar_type());
  text += " [";
  for (std::int64_t dimension = 0; dimension < tensor.dim(); ++dimension)
    text += (dimension ? ", " : "") + std::to_string(tensor.size(dimension));
  return text + "]";
}

std::vector<ModelTensors::Named> without_repetitions(std::vector<ModelTensors::Named> const& tensors) {
  std::set<c10::TensorImpl*> seen;
  std::vector<ModelTensors::Named> result;
  for (auto const& named : tensors)
    if (named.tensor.defined() && seen.insert(named.tensor.unsafeGetTensorImpl()).second) result.push_back(named);
  return result;
}

std::span<float> floats(MutableBuffer buffer) {
  return {reinterpret_cast<float*>(buffer.data()), buffer.elements()};
}

CommunicatorOptions communicator_options(DataParallelOptions const& options) {
  CommunicatorOptions of;
  of.slow_members = options.slow_members();
  return of;
}

// Buckets must not outlive their communicator, and gradients that a program keeps hold their bucket.
struct Storage {
  std::optional<Communicator> owned;
  std::vector<Bucket> buckets;
};

}  // namespace

struct DataParallel::Impl : std::enable_shared_from_this<DataParallel::Impl> {
  struct Slot {
    std::string name;
    at::Tensor parameter;
    std::size_t bucket = 0;
    std::size_t begin = 0;  // first element within the bucket
    at::Tensor outgoing;    // the slot's part of the contribution
    at::Tensor momentum;    // of its own only where on_contribution may spoil the contribution
    int passes = 0;
    bool is_in = false;
  };

  struct Hook : torch::autograd::PostAccumulateGradHook {
    Hook(std::weak_ptr<Impl> impl, std::size_t slot) : impl_(std::move(impl)), slot_(slot) {}
    void operator()(at::Tensor const&) override {
      if (auto const impl = impl_.lock()) impl->gradient_ready(slot_);
    }
    std::weak_ptr<Impl> impl_;
    std::size_t slot_;
  };

  Impl(Group const& of, std::optional<Communicator> owned, Communicator* borrowed, ModelTensors const& model,
       DataParallelOptions const& given)
      : group(of),
        options(given),
        storage(std::make_shared<Storage>()),
        momentum(given.worker_momentum(), given.momentum_convention()) {
    if (owned) storage->owned.emplace(std::move(*owned));
    communicator = borrowed ? borrowed : &*storage->owned;
    aggregate.rule = Rule::parse(options.rule());
    aggregate.byzantine = options.byzantine();
    if (!options.fallback().empty()) aggregate.fallback = Rule::parse(options.fallback());
    aggregate.scope = options.scope();
    choose_codec();
    set_weight(options.weight());
    if (options.backward_passes() < 1) throw Error(Errc::bad_argument, "backward_passes must be at least 1");
    if (communicator->world_size() == 1 && !group.is_newcomer()) {
      if (aggregate.rule.text() != "mean")
        log_info("data parallel: 1 member, so its own gradients are used and the rule " + options.rule() +
                 " does not apply");
      aggregate.rule = Rule::parse("mean");
      aggregate.fallback.reset();
      aggregate.byzantine = 0;
      codec.reset();
    } else {
      auto const fits = aggregate.rule.check_bounds(communicator->world_size(), options.byzantine());
      if (!fits && aggregate.fallback) {
        required(aggregate.fallback->check_bounds(communicator->world_size(), options.byzantine()));
      } else {
        required(fits);
      }
    }
    auto const parameters = without_repetitions(model.parameters);
    auto const buffers = without_repetitions(model.buffers);
    make_slots(parameters);
    agree(parameters, buffers);
    open_stream();
    if (options.broadcast() && !group.is_newcomer()) broadcast(parameters, buffers);
    make_buckets();
  }

  void open_stream() {
    auto slow = options.slow_members();
    if (options.backup_workers()) {
      if (options.scope() != Scope::step)
        throw Error(Errc::bad_argument, "backup_workers needs scope step, not " + std::string(name(options.scope())));
      slow = slow.value_or(SlowMembers::from(group.config()));
      slow->policy = SlowPolicy::skip;
      backup.emplace(group.self(), aggregate.rule, aggregate.byzantine);
      aggregate.says_spread = true;
    }
    stream = communicator->stream(options.stream(), slow);
    if (backup)
      communicator->register_layout(stream, optim::BackupStatistics::kElements, DType::float64,
                                    optim::BackupStatistics::aggregate(aggregate.byzantine));
  }

  void choose_codec() {
    auto const chosen = Codec::parse(options.codec());
    if (chosen.is_identity()) return;
    codec = chosen;
    constexpr double kUsualDecay = 0.95;
    double const decay = options.error_feedback().value_or(chosen.needs_error_feedback() ? kUsualDecay : 0);
    if (!(decay >= 0 && decay <= 1))
      throw Error(Errc::bad_argument, "error_feedback is " + std::to_string(decay) + ", must be from 0 to 1");
    aggregate.residual_decay = static_cast<float>(decay);
    feeds_errors_back = decay > 0;
  }

  ~Impl() {
    for (auto& slot : slots) {
      if (!slot.outgoing.defined()) continue;
      torch::autograd::impl::set_post_acc_grad_hooks(slot.parameter, nullptr);
      slot.parameter.mutable_grad() = at::Tensor();
    }
  }

  void make_slots(std::vector<ModelTensors::Named> const& parameters) {
    for (auto const& [name, tensor] : parameters) {
      if (!tensor.requires_grad()) continue;
      if (!tensor.is_leaf())
        throw Error(Errc::bad_argument, "parameter " + name + " is not a leaf: it is computed from other tensors");
      if (!tensor.is_floating_point() || !tensor.device().is_cpu())
        throw Error(Errc::bad_argument, "parameter " + name + " is " + described(tensor) + " on " +
                                            tensor.device().str() +
                                            "; only real floating point on the CPU trains here");
      if (torch::autograd::impl::post_acc_grad_hooks(tensor))
        throw Error(Errc::bad_argument, "parameter " + name + " already belongs to another DataParallel");
      Slot slot;
      slot.name = name;
      slot.parameter = tensor;
      slots.push_back(std::move(slot));
    }
  }

  void agree(std::vector<ModelTensors::Named> const& parameters, std::vector<ModelTensors::Named> const& buffers) {
    Group::Fields fields;
    for (auto const& [name, tensor] : parameters)
      fields.emplace_back("parameter " + name, described(tensor) + (tensor.requires_grad() ? "" : " frozen"));
    for (auto const& [name, tensor] : buffers) fields.emplace_back("buffer " + name, described(tensor));
    required(group.agree("model", fields, start_deadline()));
    required(group.agree("data parallel options",
                         {{"rule", Rule::parse(options.rule()).text()},
                          {"byzantine", std::to_string(options.byzantine())},
                          {"fallback", options.fallback().empty() ? "" : Rule::parse(options.fallback()).text()},
                          {"scope", std::string(name(options.scope()))},
                          {"codec", Codec::parse(options.codec()).text()},
                          {"worker_momentum", std::to_string(options.worker_momentum())},
                          {"momentum_convention", std::string(name(options.momentum_convention()))},
                          {"bucket_bytes", std::to_string(options.bucket_bytes())},
                          {"first_bucket_bytes", std::to_string(options.first_bucket_bytes())},
                          {"backward_passes", std::to_string(options.backward_passes())},
                          {"broadcast", options.broadcast() ? "true" : "false"},
                          {"slow_members", options.slow_members() ? std::string(name(options.slow_members()->policy))
                                                                  : "as the communicator"},
                          {"backup_workers", options.backup_workers() ? "true" : "false"},
                          {"stream", options.stream()}},
                         start_deadline()));
  }

  void broadcast(std::vector<ModelTensors::Named> const& parameters, std::vector<ModelTensors::Named> const& buffers) {
    if (communicator->world_size() == 1) return;
    at::NoGradGuard const no_grad;
    struct Range {
      std::byte* data;
      std::size_t bytes;
    };
    std::vector<std::pair<at::Tensor, at::Tensor>> dense;  // the model's tensor, and itself or a contiguous copy
    std::vector<Range> ranges;
    for (auto const* list : {&parameters, &buffers})
      for (auto const& named : *list) {
        dense.emplace_back(named.tensor.detach(), named.tensor.detach().contiguous());
        ranges.push_back({static_cast<std::byte*>(dense.back().second.data_ptr()), dense.back().second.nbytes()});
      }
    // All element types travel as words, in pieces, so that a large model does not need its size again.
    constexpr std::size_t kPieceBytes = std::size_t{32} << 20;
    std::vector<std::int32_t> piece;
    for (std::size_t next = 0; next < ranges.size();) {
      std::vector<Range> taken;
      std::size_t bytes = 0;
      while (next < ranges.size() && bytes < kPieceBytes) {
        auto& range = ranges[next];
        std::size_t const part = std::min(range.bytes, kPieceBytes - bytes);
        taken.push_back({range.data, part});
        range.data += part;
        range.bytes -= part;
        bytes += part;
        if (range.bytes == 0) ++next;
      }
      piece.assign((bytes + sizeof(std::int32_t) - 1) / sizeof(std::int32_t), 0);
      if (piece.empty()) continue;
      auto* position = reinterpret_cast<std::byte*>(piece.data());
      for (auto const& range : taken) {
        if (range.bytes) std::memcpy(position, range.data, range.bytes);
        position += range.bytes;
      }
      auto sending = communicator->begin(stream);
      sending.broadcast(std::span(piece), 0);
      required(sending.commit(start_deadline()));
      if (communicator->rank() == 0) continue;
      position = reinterpret_cast<std::byte*>(piece.data());
      for (auto const& range : taken) {
        if (range.bytes) std::memcpy(range.data, position, range.bytes);
        position += range.bytes;
      }
    }
    if (communicator->rank() == 0) return;
    for (auto& [tensor, copy] : dense)
      if (!tensor.is_same(copy) && tensor.data_ptr() != copy.data_ptr()) tensor.copy_(copy);
  }

  void make_buckets() {
    std::vector<optim::PlannedParameter> planned;
    for (auto const& slot : slots)
      planned.push_back(
          {static_cast<std::size_t>(slot.parameter.numel()), interop::dtype_of(slot.parameter.scalar_type())});
    if (options.scope() == Scope::layer) {
      std::vector<std::string> names;
      for (auto const& slot : slots) names.push_back(slot.name);
      plan = optim::plan_layers(planned, names);
    } else {
      plan = optim::plan_buckets(planned, options.first_bucket_bytes(), options.bucket_bytes());
    }
    missing.resize(plan.size());
    for (std::size_t index = 0; index < plan.size(); ++index) {
      storage->buckets.push_back(communicator->allocate(plan[index].elements, plan[index].dtype));
      bool const has_residual = codec && feeds_errors_back && plan[index].dtype == DType::float32;
      residuals.emplace_back(has_residual ? plan[index].elements : 0, 0.0F);
      communicator->register_layout(stream, plan[index].elements, plan[index].dtype, options_of(index));
      auto const contribution = storage->buckets.back().contribution();
      std::size_t begin = 0;
      for (std::size_t const position : plan[index].parameters) {
        auto& slot = slots[position];
        slot.bucket = index;
        slot.begin = begin;
        slot.outgoing = part(contribution, slot);
        begin += planned[position].elements;
      }
      missing[index] = plan[index].parameters.size();
    }
    for (std::size_t position = 0; position < slots.size(); ++position) {
      auto& slot = slots[position];
      if (options.on_contribution() && momentum.is_on()) slot.momentum = at::zeros_like(slot.outgoing);
    }
  }

  // After construction, as hooks refer to this object.
  void attach() {
    for (std::size_t position = 0; position < slots.size(); ++position)
      torch::autograd::impl::set_post_acc_grad_hooks(slots[position].parameter,
                                                     std::make_unique<Hook>(weak_from_this(), position));
  }

  // The slot's elements of its bucket's contribution or result.
  at::Tensor part(MutableBuffer whole, Slot const& slot) const {
    auto const elements = static_cast<std::size_t>(slot.parameter.numel());
    return interop::tensor_over(
        MutableBuffer(whole.data() + slot.begin * element_bytes(whole.dtype()), elements, whole.dtype()),
        slot.parameter.sizes(), storage);
  }

  void gradient_ready(std::size_t position) {
    if (*no_sync_depth > 0) return;
    auto& slot = slots[position];
    if (is_closing)
      throw Error(Errc::bad_argument,
                  "backward ran while the last exchange is pending; call synchronize() until it ends");
    if (slot.is_in)
      throw Error(Errc::bad_argument,
                  "parameter " + slot.name +
                      " got a second gradient after its bucket was filled; wrap all but the last "
                      "backward pass of a step in no_sync(), or set DataParallelOptions().backward_passes()");
    if (++slot.passes < options.backward_passes()) return;
    take(slot);
    launch_full();
  }

  // Moves the parameter's gradient into the contribution. The gradient's own memory is given back at once: the next
  // layer's gradient then lands in memory that is still in the cache.
  void take(Slot& slot) {
    at::NoGradGuard const no_grad;
    at::Tensor gradient = slot.parameter.grad();
    if (gradient.defined() && gradient.is_sparse()) gradient = gradient.to_dense();
    if (gradient.defined() && gradient.sizes() != slot.parameter.sizes())
      throw Error(Errc::bad_argument, "the gradient of " + slot.name + " is " + described(gradient) +
                                          ", its parameter " + described(slot.parameter));
    if (!momentum.is_on()) {
      copy(slot.outgoing, gradient);
    } else if (slot.momentum.defined()) {
      accumulate(slot.momentum, gradient);
      copy(slot.outgoing, slot.momentum);
    } else {
      accumulate(slot.outgoing, gradient);  // contributions stay as they were sent, so they can hold the momentum
    }
    slot.parameter.mutable_grad() = at::Tensor();
    slot.is_in = true;
    --missing[slot.bucket];
  }

  static void copy(at::Tensor const& to, at::Tensor const& from) {
    if (!from.defined()) {
      to.zero_();
    } else if (from.is_contiguous() && from.scalar_type() == to.scalar_type() && to.numel() > 0) {
      std::memcpy(to.data_ptr(), from.data_ptr(), to.nbytes());
    } else {
      to.copy_(from);
    }
  }

  void accumulate(at::Tensor const& state, at::Tensor gradient) const {
    if (!gradient.defined()) gradient = at::zeros_like(state);
    auto const elements = static_cast<std::size_t>(state.numel());
    gradient = gradient.to(state.scalar_type()).contiguous();
    if (state.scalar_type() == at::kFloat) {
      momentum.update(std::span(state.data_ptr<float>(), elements),
                      std::span<float const>(gradient.data_ptr<float>(), elements));
    } else if (state.scalar_type() == at::kDouble) {
      momentum.update(std::span(state.data_ptr<double>(), elements),
                      std::span<double const>(gradient.data_ptr<double>(), elements));
    } else {
      // Half precision: in float32, rounded once.
      at::Tensor const wide = state.to(at::kFloat).contiguous();
      gradient = gradient.to(at::kFloat);
      momentum.update(std::span(wide.data_ptr<float>(), elements),
                      std::span<float const>(gradient.data_ptr<float>(), elements));
      state.copy_(wide);
    }
  }

  // Members put the same collectives into a round in the same order, whatever order their gradients come in.
  void launch_full() {
    while (launched < missing.size() && missing[launched] == 0) {
      if (!round) round.emplace(communicator->begin(stream));
      auto& bucket = storage->buckets[launched];
      if (options.on_contribution() && bucket.dtype() == DType::float32)
        options.on_contribution()(floats(bucket.contribution()));
      auto const with = options_of(launched);
      ++launched;
      round->aggregate(bucket, with);
    }
  }

  [[nodiscard]] AggregateOptions options_of(std::size_t index) {
    auto with = aggregate;
    if (plan[index].dtype == DType::float32) {
      with.codec = codec;
      with.residual = residuals[index];
    }
    return with;
  }

  // Of the step that committed: what the program does about another view, and how many to wait for in the next step.
  void learn_from(Reduction const& step) {
    if (backup) communicator->wait_for_at_least(stream, backup->choose(step, learning_rate));
    if (!last_view || last_view->id != step.view) {
      View now = group.view();
      if (now.id != step.view) {
        now = View{step.view, {}};
        for (auto const id : step.members) now.members.push_back(Member{id, {}, 0, {}});
      }
      View const before = std::exchange(last_view, now).value_or(View{});
      for (auto const& policy : policies)
        if (policy.changed) policy.changed(before, now);
    }
    for (auto const& policy : policies)
      if (policy.each_step) policy.each_step();
  }

  Outcome<Reduction> synchronize(Deadline deadline) {
    if (!is_closing) {
      for (auto& slot : slots)
        if (!slot.is_in) take(slot);
      launch_full();
      if (!round) round.emplace(communicator->begin(stream));  // a model without parameters: an empty round
      if (backup) {
        if (!loss) throw Error(Errc::bad_argument, "backup_workers needs the loss of each step: step(optimizer, loss)");
        backup->set(*loss, std::chrono::duration<double>(std::chrono::steady_clock::now() - step_began).count());
        auto with = optim::BackupStatistics::aggregate(aggregate.byzantine);
        if (aggregate.weight == 0) with.weight = 0;
        round->aggregate(backup->contribution(), backup->result(), with);
      }
      is_closing = true;
    }
    auto outcome = round->commit(deadline);
    if (!outcome && outcome.error().code == Errc::pending) return outcome;
    round.reset();
    loss.reset();
    step_began = std::chrono::steady_clock::now();
    is_closing = false;
    launched = 0;
    momentum.end_step();
    for (std::size_t index = 0; index < plan.size(); ++index) missing[index] = plan[index].parameters.size();
    for (auto& slot : slots) {
      slot.is_in = false;
      slot.passes = 0;
      if (outcome) slot.parameter.mutable_grad() = part(storage->buckets[slot.bucket].result(), slot);
    }
    if (outcome) learn_from(*outcome);
    return outcome;
  }

  Outcome<void> share(StateRegistry& state, std::function<void()> step, Deadline deadline) {
    apply = std::move(step);
    try {
      sharing.emplace(*communicator, state);
    } catch (Error const& error) {
      return fail(error.errc(), error.what());
    }
    if (group.is_newcomer()) {
      auto joined = sharing->join([this](ReplayedRound const& replayed) { return replay(replayed); }, deadline);
      if (!joined) return joined;
    }
    sharing->boundary();
    return {};
  }

  // What the members' step() did with these results.
  Outcome<void> replay(ReplayedRound const& replayed) {
    if (replayed.stream.index != stream.index || !replayed.has_results) return {};
    if (replayed.results.size() != plan.size())
      return fail(Errc::mismatch, "a round of " + std::to_string(replayed.results.size()) +
                                      " results is no step of this model, which has " + std::to_string(plan.size()) +
                                      " buckets");
    for (auto& slot : slots) {
      auto const& result = replayed.results[slot.bucket];
      if (result.elements() != plan[slot.bucket].elements || result.dtype() != plan[slot.bucket].dtype)
        return fail(Errc::mismatch, "bucket " + std::to_string(slot.bucket) + " has another size at the members");
      slot.parameter.mutable_grad() = part(result, slot);
    }
    apply();
    // The memory of the results is not this object's.
    for (auto& slot : slots) slot.parameter.mutable_grad() = at::Tensor();
    return {};
  }

  Outcome<Reduction> step_with(std::function<void()> const& change) {
    auto outcome = synchronize(step_deadline());
    if (outcome) change();
    // A round that failed by its rule is one, too: the others count it as well.
    bool const is_pending = !outcome && outcome.error().code == Errc::pending;
    if (sharing && !is_pending) sharing->boundary();
    return outcome;
  }

  // The aggregate of one number per member, so that all members branch alike on it.
  Outcome<double> agreed_loss(double own, Deadline deadline) {
    auto with = aggregate;
    with.rule = Rule::parse(aggregate.byzantine > 0 ? "median" : "mean");
    auto exchange = communicator->begin(stream);
    exchange.aggregate(std::span<double const>(&own, 1), std::span<double>(&own, 1), with);
    auto const outcome = exchange.commit(deadline);
    if (!outcome) return fail(outcome.error());
    return own;
  }

  void set_weight(double weight) {
    if (!(weight >= 0)) throw Error(Errc::bad_argument, "the weight must not be negative: " + std::to_string(weight));
    aggregate.weight = weight;
  }

  [[nodiscard]] Deadline start_deadline() const { return Deadline::after(group.config().start_timeout); }
  [[nodiscard]] Deadline step_deadline() const {
    return Deadline::after(options.timeout().count() > 0 ? options.timeout() : group.config().op_timeout);
  }

  Group group;
  DataParallelOptions options;
  std::shared_ptr<Storage> storage;
  Communicator* communicator = nullptr;
  WorkerMomentum momentum;
  AggregateOptions aggregate;
  std::optional<Codec> codec;  // of float32 buckets
  bool feeds_errors_back = false;
  std::vector<std::vector<float>> residuals;  // by bucket; empty without error feedback
  Stream stream;
  std::vector<Slot> slots;  // in registration order
  std::vector<optim::PlannedBucket> plan;
  std::vector<std::size_t> missing;  // by bucket: parameters whose gradient is not in yet
  std::size_t launched = 0;          // buckets that have left in this step
  bool is_closing = false;           // everything has left, the outcome is not known yet
  std::shared_ptr<int> no_sync_depth = std::make_shared<int>(0);
  std::vector<ViewPolicy> policies;
  std::optional<View> last_view;  // of a committed step
  std::optional<optim::BackupStatistics> backup;
  std::optional<double> loss;  // of the open step
  double learning_rate = 0;
  std::chrono::steady_clock::time_point step_began = std::chrono::steady_clock::now();
  std::function<void()> apply;
  std::optional<StateSharing> sharing;
  std::optional<Round> round;  // last: destroyed before the buckets it uses
};

DataParallel::DataParallel(Group const& group, ModelTensors const& model, DataParallelOptions const& options)
    : impl_(std::make_shared<Impl>(group,
                                   std::optional<Communicator>(std::in_place, group, communicator_options(options)),
                                   nullptr, model, options)) {
  impl_->attach();
}

DataParallel::DataParallel(Communicator& communicator, ModelTensors const& model, DataParallelOptions const& options)
    : impl_(std::make_shared<Impl>(communicator.group(), std::nullopt, &communicator, model, options)) {
  impl_->attach();
}

DataParallel::DataParallel(DataParallel&&) noexcept = default;
DataParallel& DataParallel::operator=(DataParallel&&) noexcept = default;
DataParallel::~DataParallel() = default;

Outcome<Reduction> DataParallel::synchronize(Deadline deadline) {
  return impl_->synchronize(deadline);
}
Outcome<Reduction> DataParallel::synchronize() {
  return impl_->synchronize(impl_->step_deadline());
}

Outcome<Reduction> DataParallel::step(torch::optim::Optimizer& optimizer) {
  return impl_->step_with([&] { optimizer.step(); });
}

Outcome<Reduction> DataParallel::step() {
  if (!impl_->apply) throw Error(Errc::bad_argument, "step() without an optimizer needs share() before it");
  return impl_->step_with(impl_->apply);
}

Outcome<void> DataParallel::share(StateRegistry& state, std::function<void()> apply, std::optional<Deadline> deadline) {
  return impl_->share(state, std::move(apply), deadline.value_or(impl_->start_deadline()));
}

Outcome<void> DataParallel::share(StateRegistry& state, torch::optim::Optimizer& optimizer,
                                  std::optional<Deadline> deadline) {
  return share(
      state, [&optimizer] { optimizer.step(); }, deadline);
}

Outcome<Reduction> DataParallel::step(torch::optim::Optimizer& optimizer, at::Tensor const& loss) {
  impl_->loss = loss.item<double>();
  auto const& groups = optimizer.param_groups();
  if (!groups.empty()) impl_->learning_rate = groups.front().options().get_lr();
  return step(optimizer);
}

Outcome<Reduction> DataParallel::step(torch::optim::Optimizer& optimizer, std::function<at::Tensor()> const& closure) {
  // An optimizer has no way to stop in the middle but an exception.
  struct Stop {
    Failure failure;
  };
  std::optional<Reduction> last;
  try {
    optimizer.step([&]() -> at::Tensor {
      at::Tensor loss;
      {
        at::AutoGradMode const with_grad(true);
        loss = closure();
      }
      auto outcome = synchronize();
      if (!outcome) throw Stop{outcome.error()};
      last = std::move(*outcome);
      auto const agreed = impl_->agreed_loss(loss.item<double>(), impl_->step_deadline());
      if (!agreed) throw Stop{agreed.error()};
      return at::full({}, *agreed, loss.detach().options());
    });
  } catch (Stop const& stop) {
    return fail(stop.failure);
  }
  if (!last) return fail(Errc::aborted, "the optimizer evaluated no loss");
  return *last;
}

DataParallel::NoSync::NoSync(std::shared_ptr<int> depth) : depth_(std::move(depth)) {
  ++*depth_;
}
DataParallel::NoSync::~NoSync() {
  --*depth_;
}
DataParallel::NoSync DataParallel::no_sync() {
  return NoSync(impl_->no_sync_depth);
}

void DataParallel::set_weight(double weight) {
  impl_->set_weight(weight);
}

void DataParallel::register_state(StateRegistry& registry) const {
  // Not kept alive: buckets must not outlive their communicator.
  auto const find = [weak = std::weak_ptr<Impl>(impl_)]() -> Impl& {
    if (auto const impl = weak.lock()) return *impl;
    throw Error(Errc::bad_argument, "the DataParallel whose state this is has gone; remove its parts first");
  };
  std::string const prefix = impl_->options.stream() + '/';
  optim::add_rule_state(registry, prefix + "rule_state", *impl_->communicator);
  for (std::size_t index = 0; index < impl_->residuals.size(); ++index)
    if (!impl_->residuals[index].empty())
      optim::add_floats(registry, prefix + "residual/" + std::to_string(index), Sharing::own,
                        [find, index]() -> std::vector<float>& { return find().residuals[index]; });
  if (!impl_->momentum.is_on()) return;
  optim::add_count(
      registry, prefix + "momentum_steps", Sharing::own, [find] { return find().momentum.steps(); },
      [find](std::uint64_t steps) { find().momentum.go_on_after(steps); });
  for (std::size_t position = 0; position < impl_->slots.size(); ++position) {
    auto const locate = [find, position] {
      auto const& slot = find().slots[position];
      auto const& momentum = slot.momentum.defined() ? slot.momentum : slot.outgoing;
      return std::span(static_cast<std::byte*>(momentum.data_ptr()), momentum.nbytes());
    };
    auto const& slot = impl_->slots[position];
    registry.add(prefix + "momentum/" + slot.name, Sharing::own, StateRegistry::Locate(locate),
                 optim::layout_of(slot.name, slot.outgoing));
  }
}

void DataParallel::on_view_change(ViewPolicy policy) {
  impl_->policies.push_back(std::move(policy));
}
Communicator& DataParallel::communicator() const {
  return *impl_->communicator;
}
DataParallelOptions const& DataParallel::options() const {
  return impl_->options;
}
std::size_t DataParallel::buckets() const {
  return impl_->plan.size();
}

}  // namespace holdfast
