#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <torch/torch.h>

namespace holdfast::test {

inline constexpr std::int64_t kSizes[] = {3000, 70, 1500};

/// Parameters without a loss: the inner steps are given, so that a simulation can make the same ones.
struct VectorsImpl : torch::nn::Module {
  explicit VectorsImpl(std::uint64_t seed) {
    auto generator = torch::make_generator<torch::CPUGeneratorImpl>(seed);
    for (auto const size : kSizes)
      register_parameter("v" + std::to_string(size), torch::randn({size}, generator).mul(0.3));
  }
};
TORCH_MODULE(Vectors);

inline void inner_step(int replica, std::int64_t step, std::span<float> own) {
  std::mt19937 random(static_cast<unsigned>(1000 * step + replica + 7));
  std::normal_distribution<float> gauss(0.001F, 0.01F);
  for (auto& value : own) value += gauss(random);
}

inline std::vector<float> flat(torch::nn::Module const& model) {
  std::vector<float> values;
  for (auto const& parameter : model.parameters()) {
    auto const* const data = parameter.data_ptr<float>();
    values.insert(values.end(), data, data + parameter.numel());
  }
  return values;
}

inline void take_inner_step(torch::nn::Module& model, int replica, std::int64_t step) {
  torch::NoGradGuard const no_grad;
  auto values = flat(model);
  inner_step(replica, step, values);
  std::size_t next = 0;
  for (auto& parameter : model.parameters()) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(next), parameter.numel(), parameter.data_ptr<float>());
    next += static_cast<std::size_t>(parameter.numel());
  }
}

}  // namespace holdfast::test
