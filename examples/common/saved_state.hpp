#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>

#include <torch/nn/module.h>

#include <holdfast/optim/checkpointer.hpp>
#include <holdfast/optim/training_state.hpp>

namespace examples {

/// --checkpoint, --checkpoint-every, --listen-every and --resume.
struct CheckpointFlags {
  std::string folder;  ///< empty: no checkpoints
  std::uint64_t every = 0;
  std::uint64_t listen_every = 10;
  bool resume = false;
};

/// A member's own generator.
void add_generator(holdfast::TrainingState& state, std::string const& name, std::mt19937_64& generator);

/// Of the parameters' bytes.
std::string state_hash(torch::nn::Module const& model);

/// A Checkpointer as the flags say, or none.
class Checkpoints {
 public:
  Checkpoints(holdfast::Group const& group, holdfast::TrainingState& state, CheckpointFlags const& flags);

  /// With --resume, or nothing.
  [[nodiscard]] holdfast::Outcome<void> resume();
  /// After a step. @return whether the program should end with holdfast::kRequeueExitCode
  [[nodiscard]] holdfast::Outcome<bool> step(std::uint64_t step);
  /// At the end of a run.
  [[nodiscard]] holdfast::Outcome<void> save(std::uint64_t step);
  [[nodiscard]] int give_up(holdfast::Failure const& failure);

 private:
  std::optional<holdfast::Checkpointer> checkpointer_;
  bool resumes_;
};

}  // namespace examples
