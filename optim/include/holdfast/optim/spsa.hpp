#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <torch/arg.h>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

class Communicator;
class StateRegistry;

struct SpsaOptions {
  TORCH_ARG(double, learning_rate) = 1e-2;
  /// How far the loss is looked at to either side.
  TORCH_ARG(double, eps) = 1e-3;
  /// Directions that each member tries in a step.
  TORCH_ARG(int, samples) = 1;
  /// f > 0: all members try the same directions, and the median of their slopes counts. Without a liar each tries its
  /// own, which learns more from a step.
  TORCH_ARG(int, byzantine) = 0;
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// How long step() waits for the others; 0: as op_timeout of the group's Config.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds{0};
  TORCH_ARG(std::string, stream) = "slopes";
  /// For tests and experiments: may replace a slope before it leaves.
  TORCH_ARG(std::function<double(double)>, on_slope);
};

/// Fine-tuning that sends a byte and a sign per member and step (Zelikman, Huang, Liang, Haber, Goodman: Just One Byte,
/// 2023): random directions that everyone can make again from their names, and along each the slope of the loss.
///
///     Spsa spsa(communicator, model, SpsaOptions().seed(1));
///     auto step = spsa.step([&] { return loss(model, batch).item<double>(); });
///
/// Ownership:  keeps the model's tensors alive; the communicator must outlive it
/// Collective: all members construct with the same options, start with the same parameters and step equally often
class Spsa {
 public:
  /// @throws Error bad_argument for a parameter that is not float32 on the CPU or 2 f >= members
  Spsa(Communicator& communicator, ModelTensors const& model, SpsaOptions const& options = {});
  ~Spsa();

  /// @param loss  of this member's batch with the parameters as they are; called twice per sample, without gradients
  /// @return as Round::commit; without a result the parameters are those before the step
  [[nodiscard]] Outcome<Reduction> step(std::function<double()> const& loss);

  /// Puts the parameters and the number of steps into a registry, replicated.
  void register_state(StateRegistry& registry);

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
