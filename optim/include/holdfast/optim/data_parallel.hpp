#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/optimizer.h>

#include <holdfast/collectives/round.hpp>
#include <holdfast/collectives/slow_members.hpp>
#include <holdfast/optim/fwd.hpp>
#include <holdfast/optim/view_policy.hpp>
#include <holdfast/optim/worker_momentum.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {

class Communicator;
class StateRegistry;

struct DataParallelOptions {
  /// Text of the aggregation rule; `holdfast rules` and Rule::all() list them. Worker momentum belongs to robust rules.
  TORCH_ARG(std::string, rule) = "mean";
  /// f: members whose contributions may be arbitrary.
  TORCH_ARG(int, byzantine) = 0;
  /// Text of the rule that takes over while too few members are left for `rule` to tolerate f; empty: none, such a step
  /// fails.
  TORCH_ARG(std::string, fallback);
  /// step: one decision over the whole gradient; bucket: one per bucket, more overlap with backward, weaker guarantee;
  /// layer: one per module with parameters of its own, whatever bucket_bytes says; shard: one per owner's part, without
  /// a look at the other parts.
  TORCH_ARG(Scope, scope) = Scope::step;
  /// beta of the momentum that each member applies to its own gradients before they leave; 0: off.
  TORCH_ARG(double, worker_momentum) = 0.0;
  TORCH_ARG(MomentumConvention, momentum_convention) = MomentumConvention::averaged;
  /// How float32 gradients travel, for example e3m0 or int8; identity: as they are. `Codec::all()` lists them.
  TORCH_ARG(std::string, codec) = "identity";
  /// Part of what the codes of a step lost that is added to the next step's gradients; 0: none. Unset: 0.95 below
  /// 4 bits per element, where training suffers without it, else none.
  TORCH_ARG(std::optional<double>, error_feedback);
  /// Gradients leave in messages of about this size. A parameter is never divided.
  TORCH_ARG(std::size_t, bucket_bytes) = std::size_t{25} << 20;
  /// The first bucket is small, so that the exchange starts early in backward.
  TORCH_ARG(std::size_t, first_bucket_bytes) = std::size_t{1} << 20;
  /// This member's sample weight, for rules that use weights; DataParallel::set_weight changes it between steps.
  TORCH_ARG(double, weight) = 1.0;
  /// Backward passes per step, none of them under no_sync(): the buckets leave in the last one.
  TORCH_ARG(int, backward_passes) = 1;
  /// How long step() and synchronize() wait for the others; 0: as op_timeout of the group's Config.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds{0};
  /// Whether rank 0's parameters and buffers replace the others' at start.
  TORCH_ARG(bool, broadcast) = true;
  /// What happens to a member that comes late to a step; unset: as the Communicator or the group's Config says. With
  /// skip the step goes on without its gradient, and it goes on with everybody else's.
  TORCH_ARG(std::optional<SlowMembers>, slow_members);
  /// Waits for the fastest members alone, for as many as promise the greatest fall of the loss per second (dynamic
  /// backup workers); those who come later are skipped. Needs scope step and step(optimizer, loss).
  TORCH_ARG(bool, backup_workers) = false;
  /// Stream of the rounds. Two DataParallel on one Communicator need two names.
  TORCH_ARG(std::string, stream) = "gradients";
  /// For tests and experiments: sees every float32 bucket in launch order before it leaves and may replace its content.
  /// It changes what is sent, never the worker momentum. Called on the training thread.
  TORCH_ARG(std::function<void(std::span<float>)>, on_contribution);
};

/// The tensors of a model with their names: what a DataParallel works on. Made from a module or a list of tensors.
class ModelTensors {
 public:
  struct Named {
    std::string name;
    at::Tensor tensor;
  };

  ModelTensors(torch::nn::Module const& module);  // NOLINT(google-explicit-constructor): a module is its tensors
  ModelTensors(std::vector<at::Tensor> const& parameters);  // NOLINT(google-explicit-constructor): named by position
  template <typename Contained>
  ModelTensors(torch::nn::ModuleHolder<Contained> const& holder)  // NOLINT(google-explicit-constructor): as a module
      : ModelTensors(static_cast<torch::nn::Module const&>(*holder)) {}
  template <typename Contained>
  requires std::is_base_of_v<torch::nn::Module, Contained> ModelTensors(
      std::shared_ptr<Contained> const& module)  // NOLINT(google-explicit-constructor): as a module
      : ModelTensors(static_cast<torch::nn::Module const&>(*module)) {}

  std::vector<Named> parameters;  ///< in registration order
  std::vector<Named> buffers;     ///< running statistics and the like: broadcast at start, not aggregated
};

/// Data-parallel training: every member computes the gradient of its own batch, and all step with one aggregate of
/// them.
///
///     DataParallel parallel(group, model, DataParallelOptions().rule("nnm+trimmed_mean").byzantine(1));
///     for (auto& batch : loader) {
///       sgd.zero_grad();
///       loss(model, batch).backward();     // buckets leave as they fill
///       auto step = parallel.step(sgd);    // waits for the aggregate, then steps
///       if (!step) return step.error().exit_code();
///     }
///
/// During backward each gradient moves into its bucket, and `.grad` is undefined from then on until synchronize() puts
/// the aggregate there, in memory that the program may write to (clipping). What a parameter's hook did not bring in by
/// synchronize() (an unused parameter, or one used only under no_sync) contributes the gradient it has, or zeros.
/// A group that was started as one member applies no rule.
///
/// Ownership: keeps the model's tensors alive; takes its hooks and the aggregate in `.grad` away at destruction. A copy
/// of
///            `.grad` that the program keeps has its memory for as long as a borrowed Communicator lives
/// Threads:   one thread at a time, the one that runs backward
/// Collective: all members construct, run backward and synchronize equally often
class DataParallel {
 public:
  /// Checks that all members built the same model with the same options, then broadcasts rank 0's. Collective.
  ///
  /// @throws Error mismatch, the same at all members, naming the first differing member and parameter, before any data
  ///         moves; bad_argument (unknown rule, a parameter that is not floating point or already belongs to a
  ///         DataParallel); f_out_of_bounds with the rule's bound; member_lost
  DataParallel(Group const& group, ModelTensors const& model, DataParallelOptions const& options = {});
  /// The same over an existing communicator, which must outlive this object and the gradients it leaves in `.grad`.
  DataParallel(Communicator& communicator, ModelTensors const& model, DataParallelOptions const& options = {});

  DataParallel(DataParallel&&) noexcept;
  DataParallel& operator=(DataParallel&&) noexcept;
  /// Never waits. With an exchange in flight it ends this membership: call synchronize() first.
  ~DataParallel();

  /// Sends what is missing, ends the round and puts the aggregate into every parameter's `.grad`.
  ///
  /// @return the agreed reduction; or too_many_faulty_rows, f_out_of_bounds: the same at all members, gradients are
  ///         gone, parameters untouched, the next step may go on; or pending: call again with a later deadline, until
  ///         then neither backward nor the optimizer may run; or member_lost …: the group is over
  [[nodiscard]] Outcome<Reduction> synchronize(Deadline deadline);
  [[nodiscard]] Outcome<Reduction> synchronize();

  /// synchronize(), then optimizer.step() if that committed.
  [[nodiscard]] Outcome<Reduction> step(torch::optim::Optimizer& optimizer);
  /// The same with the loss of this member's batch, of which DataParallelOptions::backup_workers learns.
  [[nodiscard]] Outcome<Reduction> step(torch::optim::Optimizer& optimizer, at::Tensor const& loss);
  /// For optimizers that evaluate the loss several times (LBFGS). The closure zeroes gradients, runs backward and
  /// returns its loss, as without holdfast; each evaluation is synchronized, and the optimizer sees the aggregate of
  /// the losses (the median where f > 0), so that all members take the same branches. On failure the parameters are
  /// those of the optimizer's last evaluation. @return that of the last evaluation
  [[nodiscard]] Outcome<Reduction> step(torch::optim::Optimizer& optimizer, std::function<at::Tensor()> const& closure);

  /// Lets newcomers into this training. Members: collective, after construction; step() then serves whoever asks.
  /// Newcomers (config key `join`): fetches the members' state, replays their steps and enters the view; on success the
  /// program goes on where the members are.
  ///
  ///     TrainingState state;
  ///     state.add_model(model).add_optimizer(sgd).add_counter("steps", steps);
  ///     parallel.share(state.registry(), [&] { clip(model); sgd.step(); schedule.step(); ++steps; });
  ///     while (steps < 1000) { …; loss.backward(); auto step = parallel.step(); … }
  ///
  /// Whatever changes from step to step at all members alike belongs into `state`, and changes in `apply` alone, which
  /// finds the aggregate in `.grad` and runs in step() and in the replay. Momentum of members and residuals of codecs
  /// are each member's own and begin anew. Not for step() with a closure.
  ///
  /// @param state     must outlive this object, as what `apply` refers to
  /// @param deadline  of a newcomer; none: the start timeout from now
  /// @return mismatch, diverged, pending, member_lost …
  [[nodiscard]] Outcome<void> share(StateRegistry& state, std::function<void()> apply,
                                    std::optional<Deadline> deadline = {});
  /// The same where a step is optimizer.step() and nothing else.
  [[nodiscard]] Outcome<void> share(StateRegistry& state, torch::optim::Optimizer& optimizer,
                                    std::optional<Deadline> deadline = {});
  /// synchronize(), then what share() was given if that committed. @throws Error bad_argument without share()
  [[nodiscard]] Outcome<Reduction> step();

  /// While it lives, backward accumulates into `.grad` and nothing leaves: for batches larger than memory.
  class NoSync {
   public:
    NoSync(NoSync const&) = delete;
    NoSync& operator=(NoSync const&) = delete;
    ~NoSync();

   private:
    friend class DataParallel;
    explicit NoSync(std::shared_ptr<int> depth);
    std::shared_ptr<int> depth_;
  };
  [[nodiscard]] NoSync no_sync();

  /// From the next step on; between steps. 0: this member takes part without a contribution of its own.
  /// @throws Error bad_argument for a negative weight
  void set_weight(double weight);

  /// Puts into a registry what this object remembers from step to step, under the name of its stream: each member's own
  /// worker momentum ("gradients/momentum/layer.weight") and error-feedback residuals, and what the rule remembers
  /// ("gradients/rule_state", replicated). Not the model: TrainingState::add_model has it.
  /// @throws Error bad_argument, here and from the registry, once this object is gone: remove the parts first
  void register_state(StateRegistry& registry) const;

  /// What to do when members come and go; in the order in which they are given. See ViewPolicy for when it is called.
  void on_view_change(ViewPolicy policy);

  [[nodiscard]] Communicator& communicator() const;
  [[nodiscard]] DataParallelOptions const& options() const;
  [[nodiscard]] std::size_t buckets() const;

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast
