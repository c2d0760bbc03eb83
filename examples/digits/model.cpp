#include "model.hpp"

#include <cmath>

#include <torch/torch.h>

#include <holdfast/runtime/error.hpp>

torch::nn::Sequential make_model(std::string const& name, std::int64_t side, std::int64_t classes, std::uint64_t seed) {
  using namespace torch::nn;
  Sequential model;
  if (name == "mlp") {
    model = Sequential(Linear(side * side, 32), ReLU(), Linear(32, classes));
  } else if (name == "cnn" && side >= 4) {
    auto const pool = MaxPool2dOptions(2);
    model = Sequential(Unflatten(UnflattenOptions(1, {1, side, side})), Conv2d(Conv2dOptions(1, 8, 3).padding(1)),
                       ReLU(), MaxPool2d(pool), Conv2d(Conv2dOptions(8, 16, 3).padding(1)), ReLU(), MaxPool2d(pool),
                       Flatten(), Linear(16 * (side / 4) * (side / 4), classes));
  } else {
    throw holdfast::Error(holdfast::Errc::bad_argument,
                          "unknown model '" + name + "'; valid: mlp, cnn (for images of at least 4x4)");
  }
  torch::NoGradGuard const no_grad;
  auto generator = torch::make_generator<torch::CPUGeneratorImpl>(1000 + seed);
  for (auto& parameter : model->parameters())
    if (parameter.dim() == 1) {
      parameter.zero_();
    } else {
      auto const fan_in = static_cast<double>(parameter[0].numel());
      parameter.copy_(torch::randn(parameter.sizes(), generator) * std::sqrt(2 / fan_in));
    }
  return model;
}
