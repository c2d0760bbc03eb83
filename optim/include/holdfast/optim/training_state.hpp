#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <torch/optim/optimizer.h>

#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/optim/fwd.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {

/// Everything that a libtorch program needs to go on elsewhere, put into a StateRegistry: for joiners, for checkpoints
/// and for the check that members hold the same state.
///
///     std::int64_t step = 0;
///     TrainingState state;
///     state.add_model(model)               // "layer.weight": parameters and buffers, named as in the model
///         .add_optimizer(adamw)            // "optimizer": options (learning rate) and state of each parameter
///         .add_counter("step", step)       // "counter/step"
///         .add_sampler(sampler)            // "sampler": where the epoch stands
///         .add_random()                    // "random/cpu": torch's generator, each member's own
///         .add(parallel);                  // momentum, residuals and rule state of a DataParallel
///     Digest const mine = state.registry().digest();    // equal at all members between rounds
///
/// Ownership: what was added must live as long as this object; the tensors of a model are kept alive
/// Threads:   one at a time, between steps
class TrainingState {
 public:
  TrainingState();
  TrainingState(TrainingState&&) noexcept;
  TrainingState& operator=(TrainingState&&) noexcept;
  ~TrainingState();

  /// @param prefix   put before each name: "generator."
  /// @param sharing  own for schemes in which the members' parameters differ (Monna)
  /// @throws Error   bad_argument: a name is taken, or a tensor is not on the CPU, not dense or of a type that
  ///                 safetensors has no name for
  TrainingState& add_model(ModelTensors const& model, std::string const& prefix = "",
                           Sharing sharing = Sharing::replicated);
  /// Any optimizer of torch::optim, or derived from one: the bytes are equal for equal states at different processes,
  /// and one that was loaded goes on bit for bit. A learning-rate scheduler keeps its count to itself: set the rate
  /// from the step instead.
  /// @throws Error bad_argument for other optimizers: add() takes functions
  TrainingState& add_optimizer(torch::optim::Optimizer& optimizer, std::string const& name = "optimizer",
                               Sharing sharing = Sharing::replicated);
  /// The state of torch's default CPU generator (dropout, torch::randn), each member's own.
  TrainingState& add_random();
  /// The epoch and the position within it, that of all copies of the sampler, so of the one in a data loader too. A
  /// loader with workers draws ahead of training: then the position is that of the drawing.
  TrainingState& add_sampler(DistributedSampler& sampler, std::string const& name = "sampler");
  TrainingState& add_counter(std::string const& name, std::int64_t& counter);
  TrainingState& add_counter(std::string const& name, std::uint64_t& counter);
  /// State behind functions; equal states must give equal bytes.
  TrainingState& add(std::string name, Sharing sharing, StateRegistry::Save save, StateRegistry::Load load);
  /// Anything that puts its own state into a registry: DataParallel, Monna, FedVote, Spsa.
  template <typename Part>
  TrainingState& add(Part& part) {
    part.register_state(registry());
    return *this;
  }

  [[nodiscard]] StateRegistry& registry();
  [[nodiscard]] StateRegistry const& registry() const;

 private:
  std::unique_ptr<StateRegistry> registry_;
};

}  // namespace holdfast
