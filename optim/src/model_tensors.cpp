#include <string>
#include <utility>

#include <torch/nn/module.h>

#include <holdfast/optim/data_parallel.hpp>

namespace holdfast {

ModelTensors::ModelTensors(torch::nn::Module const& module) {
  for (auto const& item : module.named_parameters()) parameters.push_back({item.key(), item.value()});
  for (auto const& item : module.named_buffers()) buffers.push_back({item.key(), item.value()});
}

ModelTensors::ModelTensors(std::vector<at::Tensor> const& tensors) {
  for (auto const& tensor : tensors) {
    std::string name = std::to_string(parameters.size());
    name.insert(name.begin(), '#');
    parameters.push_back({std::move(name), tensor});
  }
}

}  // namespace holdfast
