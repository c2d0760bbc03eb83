#include <string>

#include <torch/nn/module.h>

#include <holdfast/optim/data_parallel.hpp>

namespace holdfast {

ModelTensors::ModelTensors(torch::nn::Module const& module) {
  for (auto const& item : module.named_parameters()) parameters.push_back({item.key(), item.value()});
  for (auto const& item : module.named_buffers()) buffers.push_back({item.key(), item.value()});
}

ModelTensors::ModelTensors(std::vector<at::Tensor> const& tensors) {
  for (auto const& tensor : tensors) parameters.push_back({"#" + std::to_string(parameters.size()), tensor});
}

}  // namespace holdfast
