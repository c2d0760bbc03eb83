#include <cstdio>

#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>

#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/group.hpp>

int main() {
  auto group = holdfast::Group::join(holdfast::Config::from_environment());
  torch::nn::Linear model(4, 1);
  torch::optim::SGD sgd(model->parameters(), 0.1);
  holdfast::DataParallel parallel(group, model);

  auto const inputs = torch::ones({8, 4});
  auto const targets = torch::zeros({8, 1});
  auto loss = [&] { return torch::nn::functional::mse_loss(model(inputs), targets); };
  auto const before = loss().item<float>();
  for (int step = 0; step < 5; ++step) {
    sgd.zero_grad();
    loss().backward();
    if (auto outcome = parallel.step(sgd); !outcome) return outcome.error().exit_code();
  }
  if (!(loss().item<float>() < before)) return 1;
  std::puts("consumer: ok");
}
