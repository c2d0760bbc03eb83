#include "model.hpp"

#include <cmath>

#include <torch/torch.h>

namespace char_lm {

namespace F = torch::nn::functional;

ModelImpl::ModelImpl(ModelOptions const& options)
    : options_(options), generator_(torch::make_generator<torch::CPUGeneratorImpl>(1000 + options.seed)) {
  auto const d = options.width;
  auto const scaled = [](double factor, std::int64_t fan_in) {
    return factor / std::sqrt(static_cast<double>(fan_in));
  };
  double const residual = .8 / std::sqrt(2. * static_cast<double>(options.layers));
  tokens_ = matrix("tokens", options.vocabulary, d, .02);
  positions_ = matrix("positions", options.context, d, .02);
  for (std::int64_t i = 0; i < options.layers; ++i) {
    auto const name = "block" + std::to_string(i) + "_";
    blocks_.push_back({gain(name + "gain1"), matrix(name + "qkv", 3 * d, d, scaled(.8, d)),
                       matrix(name + "out", d, d, scaled(residual, d)), gain(name + "gain2"),
                       matrix(name + "up", 4 * d, d, scaled(.8, d)),
                       matrix(name + "down", d, 4 * d, scaled(residual, 4 * d))});
  }
  gain_ = gain("gain");
  head_ = matrix("head", options.vocabulary, d, scaled(.8, d));
}

torch::Tensor ModelImpl::forward(torch::Tensor const& symbols) {
  auto const batch = symbols.size(0), length = symbols.size(1), d = options_.width, heads = options_.heads;
  auto h = torch::embedding(tokens_, symbols) + positions_.narrow(0, 0, length);
  for (auto const& block : blocks_) {
    auto const parts = torch::matmul(normalised(h, block.gain1), block.qkv.t())
                           .view({batch, length, 3, heads, d / heads})
                           .permute({2, 0, 3, 1, 4});
    auto const mixed = torch::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0., /*is_causal=*/true);
    h = h + torch::matmul(mixed.transpose(1, 2).reshape({batch, length, d}), block.out.t());
    h = h +
        torch::matmul(torch::relu(torch::matmul(normalised(h, block.gain2), block.up.t())).square(), block.down.t());
  }
  return torch::matmul(normalised(h, gain_), head_.t());
}

std::vector<torch::Tensor> ModelImpl::decayed() const {
  std::vector<torch::Tensor> result;
  for (auto const& item : named_parameters())
    if (item.value().dim() == 2 && item.key() != "tokens" && item.key() != "positions") result.push_back(item.value());
  return result;
}

std::vector<torch::Tensor> ModelImpl::undecayed() const {
  std::vector<torch::Tensor> result;
  for (auto const& item : named_parameters())
    if (item.value().dim() != 2 || item.key() == "tokens" || item.key() == "positions") result.push_back(item.value());
  return result;
}

torch::Tensor ModelImpl::matrix(std::string const& name, std::int64_t rows, std::int64_t columns, double deviation) {
  return register_parameter(name, torch::randn({rows, columns}, generator_) * deviation);
}

torch::Tensor ModelImpl::gain(std::string const& name) {
  return register_parameter(name, torch::ones({options_.width}));
}

torch::Tensor ModelImpl::normalised(torch::Tensor const& h, torch::Tensor const& gain) const {
  return F::layer_norm(h, F::LayerNormFuncOptions({options_.width}).weight(gain).eps(1e-5));
}

}  // namespace char_lm
