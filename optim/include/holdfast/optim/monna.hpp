#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include <torch/arg.h>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

class Communicator;
class StateRegistry;

struct MonnaOptions {
  TORCH_ARG(double, learning_rate) = 0.75;
  /// beta of each member's momentum.
  TORCH_ARG(double, momentum) = 0.99;
  /// f: members whose parameters may be arbitrary.
  TORCH_ARG(int, byzantine) = 0;
  /// How parameters are averaged: nna around each member's own, or a rule with one result for all.
  TORCH_ARG(std::string, rule) = "nna";
  /// How long step() waits for the others; 0: as op_timeout of the group's Config.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds{0};
  TORCH_ARG(std::string, stream) = "parameters";
  /// For tests and experiments: sees the parameters before they leave and may replace them.
  TORCH_ARG(std::function<void(std::span<float>)>, on_contribution);
};

/// Collaborative learning without a common model (MoNNA: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, ICML
/// 2023): each member steps with its own momentum, then replaces its parameters by the mean of the n-f members' that
/// lie closest to them. Bytes per step: those of an all-reduce.
///
///     Monna monna(communicator, model, MonnaOptions().byzantine(1));
///     loss.backward();
///     auto step = monna.step();
///
/// Ownership:  keeps the model's tensors alive; the communicator must outlive it
/// Collective: all members construct and step equally often. Models of equal shape; equal starts are not needed
class Monna {
 public:
  /// @throws Error bad_argument for a parameter that is not float32 on the CPU, f_out_of_bounds with the rule's bound
  Monna(Communicator& communicator, ModelTensors const& model, MonnaOptions const& options = {});
  ~Monna();

  /// Takes the gradients in `.grad`, which it leaves as they are.
  /// @return as Round::commit; without a result the parameters are those before the step
  [[nodiscard]] Outcome<Reduction> step();
  void set_learning_rate(double learning_rate);

  /// Puts this member's momentum ("parameters/velocity") into a registry. The parameters are the member's own too:
  /// TrainingState::add_model(model, "", Sharing::own).
  void register_state(StateRegistry& registry);

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
