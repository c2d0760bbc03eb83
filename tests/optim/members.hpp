#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <holdfast/runtime/group.hpp>

namespace holdfast::test {

/// Runs `member` once per thread-member of one group and reports what escapes from it as a test failure.
inline void run_members(int members, std::function<void(Group)> const& member, std::string const& fabric = "auto") {
  torch::set_num_threads(1);
  Config config;
  config.fabric = fabric;
  config.op_timeout = std::chrono::seconds(20);
  // Members end at different moments, and nobody's end may shrink what the others still compare with.
  config.on_loss = "end";
  config.heartbeat_timeout = std::chrono::seconds(2);
  auto groups = Group::in_threads(members, config);
  std::vector<std::jthread> threads;
  for (auto& group : groups)
    threads.emplace_back([&member, group = std::move(group)]() mutable {
      int const rank = group.rank();
      try {
        member(std::move(group));
      } catch (std::exception const& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
      }
    });
  groups.clear();
}

/// A model of small layers whose start depends on the seed alone.
struct MlpImpl : torch::nn::Module {
  explicit MlpImpl(std::uint64_t seed, std::int64_t hidden = 16)
      : first(register_module("first", torch::nn::Linear(6, hidden))),
        second(register_module("second", torch::nn::Linear(hidden, hidden))),
        last(register_module("last", torch::nn::Linear(hidden, 3))) {
    torch::NoGradGuard const no_grad;
    auto generator = torch::make_generator<torch::CPUGeneratorImpl>(seed);
    for (auto& parameter : parameters()) parameter.copy_(torch::randn(parameter.sizes(), generator).mul(0.3));
  }
  torch::Tensor forward(torch::Tensor const& x) { return last(torch::relu(second(torch::relu(first(x))))); }
  torch::nn::Linear first, second, last;
};
TORCH_MODULE(Mlp);

struct Batch {
  torch::Tensor x, y;
  [[nodiscard]] Batch part(int rank, int members) const {
    auto const rows = x.size(0) / members;
    return {x.narrow(0, rank * rows, rows), y.narrow(0, rank * rows, rows)};
  }
};

/// The same batch for the same seed; 24 rows divide evenly among 1, 2, 3 and 4 members.
inline Batch make_batch(std::uint64_t seed) {
  auto generator = torch::make_generator<torch::CPUGeneratorImpl>(seed);
  return {torch::randn({24, 6}, generator), torch::randint(3, {24}, generator)};
}

inline torch::Tensor loss_of(Mlp& model, Batch const& batch) {
  return torch::nn::functional::cross_entropy(model(batch.x), batch.y);
}

inline std::vector<torch::Tensor> copies(std::vector<torch::Tensor> const& tensors) {
  std::vector<torch::Tensor> result;
  for (auto const& tensor : tensors) result.push_back(tensor.detach().clone());
  return result;
}

inline std::vector<torch::Tensor> gradients(torch::nn::Module& model) {
  std::vector<torch::Tensor> result;
  for (auto const& parameter : model.parameters()) result.push_back(parameter.grad());
  return result;
}

inline void expect_close(std::vector<torch::Tensor> const& actual, std::vector<torch::Tensor> const& expected,
                         double tolerance = 1e-6) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_TRUE(actual[i].defined()) << "tensor " << i;
    ASSERT_EQ(actual[i].sizes(), expected[i].sizes()) << "tensor " << i;
    EXPECT_TRUE(torch::allclose(actual[i], expected[i], tolerance, tolerance))
        << "tensor " << i << " differs by " << (actual[i] - expected[i]).abs().max().item<double>();
  }
}

}  // namespace holdfast::test
