#pragma once

#include <string>

#include <torch/arg.h>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

class Communicator;

struct ParameterAverageOptions {
  TORCH_ARG(std::string, rule) = "mean";
  TORCH_ARG(int, byzantine) = 0;
  /// Of this member's parameters, for rules that use weights: the samples it trained on, over the others' average.
  TORCH_ARG(double, weight) = 1.0;
  /// Stretches each averaged parameter about its mean until it has the members' average variance: models that differ
  /// lose variance when they are averaged (arXiv 2404.04616). Not against liars: the variances are the members' word.
  TORCH_ARG(bool, variance_correction) = false;
  TORCH_ARG(std::string, stream) = "average";
};

/// Replaces the parameters of all members by one average, for training that averages models now and then. Collective.
/// @return as Round::commit; without a result the parameters stay
/// @throws Error bad_argument for a parameter that is not float32 on the CPU, or variance correction with byzantine > 0
[[nodiscard]] Outcome<Reduction> average_parameters(Communicator& communicator, ModelTensors const& model,
                                                    Deadline deadline, ParameterAverageOptions const& options = {});

}  // namespace holdfast
