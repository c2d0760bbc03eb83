#pragma once

#include <cstdint>
#include <string>

#include <torch/nn/modules/container/sequential.h>

/// `mlp`: 64-32-10 for 8x8 digits. `cnn`: two convolutions of 8 and 16 channels, then one linear layer.
/// @throws holdfast::Error bad_argument naming the models
torch::nn::Sequential make_model(std::string const& name, std::int64_t side, std::int64_t classes, std::uint64_t seed);
