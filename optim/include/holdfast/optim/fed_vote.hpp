#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <torch/arg.h>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

class Communicator;
class StateRegistry;

struct FedVoteTrainingOptions {
  /// Of the local Adam steps on the latent weights.
  TORCH_ARG(double, learning_rate) = 0.05;
  TORCH_ARG(double, sharpness) = 1.5;
  TORCH_ARG(double, credibility_memory) = 0.5;
  /// Of the votes; each member draws its own.
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// How long vote() waits for the others; 0: as op_timeout of the group's Config.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds{0};
  TORCH_ARG(std::string, stream) = "votes";
  /// For tests and experiments: sees the votes (+1 and -1) before they leave and may replace them.
  TORCH_ARG(std::function<void(std::span<float>)>, on_votes);
};

/// Training by votes (FedVote: Yue, Jin, Wong, Dai, 2022): the model's parameters are tanh(k h) of latent weights h,
/// members train h by themselves, and now and then vote on the sign of each weight: a bit per weight and member.
///
///     FedVote vote(communicator, model);
///     for (…40 batches…) { zero_grad; loss.backward(); vote.local_step(); }
///     auto round = vote.vote();           // equal weights at all members again
///
/// Ownership:  keeps the model's tensors alive; the communicator must outlive it
/// Collective: all members construct and vote equally often
class FedVote {
 public:
  /// The model's parameters, limited to (-1, 1), are the start; equal at all members.
  /// @throws Error bad_argument for a parameter that is not float32 on the CPU
  FedVote(Communicator& communicator, ModelTensors const& model, FedVoteTrainingOptions const& options = {});
  ~FedVote();

  /// One step of Adam on the latent weights with the gradients in `.grad`.
  void local_step();
  /// Exchanges votes. @return as Round::commit; without a result the weights are those before
  [[nodiscard]] Outcome<Reduction> vote();

  /// Of each member, by rank: how often it votes with the plurality, averaged over rounds. State: save it.
  [[nodiscard]] std::vector<double> const& credibility() const;
  /// Of the last round: what each member's votes counted for.
  [[nodiscard]] std::vector<double> const& weights() const;

  /// Puts latent weights, credibility and the number of votes into a registry. All of it is replicated, which holds
  /// right after vote() and before the next local_step(): take snapshots there. They carry the model's parameters.
  void register_state(StateRegistry& registry);

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
