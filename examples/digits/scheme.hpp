#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <torch/nn/modules/container/sequential.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/training_state.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/state_registry.hpp>

/// How members learn from each other, by name: the flag --scheme.
struct SchemeOptions {
  std::string name = "data_parallel";
  std::string rule = "mean";
  std::string fallback;
  int byzantine = 0;
  holdfast::Scope scope = holdfast::Scope::step;
  double learning_rate = 0.5;
  double momentum = 0.9;
  std::uint64_t local_steps = 40;  ///< between exchanges, of fedvote and local_sgd
  bool variance_correction = false;
  double clip = 0;   ///< of the gradient of one example; 0: not private
  double noise = 0;  ///< multiplier
  std::uint64_t seed = 0;
  bool scales_learning_rate = false;      ///< with the number of members
  std::uint64_t learning_rate_steps = 0;  ///< over which it moves
  std::function<void(std::span<float>)> on_contribution;
};

/// The loss of the examples at these places of the batch; all of them if none are given.
using Loss = std::function<torch::Tensor(std::vector<std::int64_t> const&)>;

class Scheme {
 public:
  virtual ~Scheme() = default;
  /// One training step. @return what the round says of itself, nothing for a step that exchanged nothing
  virtual holdfast::Outcome<std::optional<holdfast::Reduction>> step(Loss const& loss, std::int64_t batch) = 0;

  /// Everything but the step and the batches.
  virtual void register_state(holdfast::TrainingState& state) = 0;
  /// Whether what members share is the same everywhere now: where they learn by themselves, only after an exchange.
  [[nodiscard]] virtual bool members_are_equal() const { return true; }
  /// Of this member's contribution to the next step, where the scheme has weights.
  virtual void set_weight(double) {}
  /// Lets newcomers fetch this state, or fetches it as one. @param after_step  called after each step that changes it
  virtual holdfast::Outcome<void> share(holdfast::StateRegistry& state, std::function<void()> after_step);
};

/// @throws holdfast::Error bad_argument naming the schemes
std::unique_ptr<Scheme> make_scheme(holdfast::Communicator& communicator, torch::nn::Sequential const& model,
                                    SchemeOptions const& options);
/// Throws as make_scheme would for this name.
void check_scheme(SchemeOptions const& options);
