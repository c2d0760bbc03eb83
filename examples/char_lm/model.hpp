#pragma once

#include <cstdint>
#include <vector>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

namespace char_lm {

struct ModelOptions {
  std::int64_t vocabulary = 0;
  std::int64_t width = 48;
  std::int64_t layers = 6;
  std::int64_t heads = 4;
  std::int64_t context = 64;
  std::uint64_t seed = 0;
};

/// Pre-norm transformer over characters: no biases, no dropout, squared-ReLU feed-forward of four times the width,
/// untied head.
class ModelImpl : public torch::nn::Module {
 public:
  explicit ModelImpl(ModelOptions const& options);
  /// @param symbols [batch, up to context] @return scores [batch, length, vocabulary]
  torch::Tensor forward(torch::Tensor const& symbols);
  /// Parameters that weight decay applies to (matrices but for the embeddings), and the others.
  [[nodiscard]] std::vector<torch::Tensor> decayed() const;
  [[nodiscard]] std::vector<torch::Tensor> undecayed() const;

 private:
  struct Block {
    torch::Tensor gain1, qkv, out, gain2, up, down;
  };
  torch::Tensor matrix(std::string const& name, std::int64_t rows, std::int64_t columns, double deviation);
  torch::Tensor gain(std::string const& name);
  [[nodiscard]] torch::Tensor normalised(torch::Tensor const& h, torch::Tensor const& gain) const;

  ModelOptions options_;
  torch::Generator generator_;
  torch::Tensor tokens_, positions_, gain_, head_;
  std::vector<Block> blocks_;
};
TORCH_MODULE(Model);

}  // namespace char_lm
