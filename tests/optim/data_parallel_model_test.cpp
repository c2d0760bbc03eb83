#include <mutex>

#include <holdfast/collectives/interop/torch.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"

namespace holdfast {
namespace {

using test::Mlp;
using test::run_members;

// What each member is told when it constructs a DataParallel.
std::vector<std::string> refusals(int members, std::function<ModelTensors(int)> const& model,
                                  std::function<DataParallelOptions(int)> const& options, Errc code) {
  std::mutex mutex;
  std::vector<std::string> messages;
  run_members(members, [&](Group group) {
    try {
      DataParallel parallel(group, model(group.rank()), options(group.rank()));
      ADD_FAILURE() << "rank " << group.rank() << " was not refused";
    } catch (Error const& error) {
      EXPECT_EQ(error.errc(), code) << error.what();
      std::lock_guard const lock(mutex);
      messages.emplace_back(error.what());
    }
  });
  return messages;
}

DataParallelOptions defaults(int) {
  return {};
}

TEST(DataParallelModel, another_shape_is_named_at_every_member) {
  auto const messages = refusals(
      3, [](int rank) { return ModelTensors(*Mlp(1, rank == 1 ? 17 : 16)); }, defaults, Errc::mismatch);
  ASSERT_EQ(messages.size(), 3U);
  for (auto const& message : messages) {
    EXPECT_NE(message.find("first.weight"), std::string::npos) << message;
    EXPECT_NE(message.find("17"), std::string::npos) << message;
    EXPECT_NE(message.find('1'), std::string::npos) << message;
  }
}

TEST(DataParallelModel, another_type_or_a_missing_parameter_is_named) {
  for (auto const& message : refusals(
           2,
           [](int rank) {
             Mlp model(1);
             if (rank == 1) model->to(torch::kDouble);
             return ModelTensors(*model);
           },
           defaults, Errc::mismatch))
    EXPECT_NE(message.find("Double"), std::string::npos) << message;
  for (auto const& message : refusals(
           2,
           [](int rank) {
             std::vector<torch::Tensor> list;
             for (int i = 0; i < 2 + rank; ++i) list.push_back(torch::zeros({3}).set_requires_grad(true));
             return ModelTensors(list);
           },
           defaults, Errc::mismatch))
    EXPECT_NE(message.find("#2"), std::string::npos) << message;
}

TEST(DataParallelModel, other_options_are_refused) {
  for (auto const& message : refusals(
           2, [](int) { return ModelTensors(*Mlp(1)); },
           [](int rank) { return DataParallelOptions().worker_momentum(rank * 0.5); }, Errc::mismatch))
    EXPECT_NE(message.find("worker_momentum"), std::string::npos) << message;
}

TEST(DataParallelModel, bad_rules_are_refused_with_what_is_valid) {
  auto const model = [](int) { return ModelTensors(*Mlp(1)); };
  for (auto const& message : refusals(
           2, model, [](int) { return DataParallelOptions().rule("meen"); }, Errc::bad_argument))
    EXPECT_NE(message.find("trimmed_mean"), std::string::npos) << message;
  for (auto const& message : refusals(
           2, model, [](int) { return DataParallelOptions().rule("median").byzantine(1); }, Errc::f_out_of_bounds))
    EXPECT_NE(message.find("2f"), std::string::npos) << message;
}

TEST(DataParallelModel, rank_zero_gives_parameters_and_buffers) {
  run_members(3, [&](Group group) {
    torch::manual_seed(group.rank());
    torch::nn::Sequential model(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 3, 3)), torch::nn::BatchNorm2d(3));
    {
      torch::NoGradGuard const no_grad;
      for (auto& parameter : model->parameters()) parameter.fill_(1 + group.rank());
      model[0]->as<torch::nn::Conv2d>()->weight.requires_grad_(false);  // frozen ones count too
      for (auto& buffer : model->buffers()) buffer.fill_(7 + group.rank());
      auto transposed = torch::arange(6).view({2, 3}).t().add(group.rank());
      model->register_buffer("transposed", transposed);
    }
    DataParallel parallel(group, model);
    for (auto const& parameter : model->parameters()) EXPECT_TRUE(parameter.eq(1).all().item<bool>());
    for (auto const& item : model->named_buffers()) {
      if (item.key() == "transposed") continue;
      EXPECT_TRUE(item.value().eq(7).all().item<bool>()) << item.key();
    }
    EXPECT_TRUE(torch::equal(model->named_buffers()["transposed"], torch::arange(6).view({2, 3}).t()));
  });
}

TEST(DataParallelModel, a_model_without_parameters_steps) {
  run_members(2, [&](Group group) {
    DataParallel parallel(group, std::vector<torch::Tensor>{});
    EXPECT_TRUE(parallel.synchronize().has_value());
    EXPECT_TRUE(parallel.synchronize().has_value());
  });
}

TEST(DataParallelModel, tied_parameters_count_once) {
  run_members(2, [&](Group group) {
    auto weight = torch::ones({2}).set_requires_grad(true);
    DataParallel parallel(group, std::vector<torch::Tensor>{weight, weight});
    (weight.sum() * (group.rank() + 1)).backward();
    ASSERT_TRUE(parallel.synchronize().has_value());
    EXPECT_FLOAT_EQ(weight.grad()[0].item<float>(), 1.5);
  });
}

TEST(TensorBuffers, keep_type_and_address) {
  auto const tensor = torch::zeros({2, 3}, torch::kBFloat16);
  auto const buffer = interop::mutable_buffer(tensor);
  EXPECT_EQ(buffer.elements(), 6U);
  EXPECT_EQ(buffer.dtype(), DType::bfloat16);
  EXPECT_EQ(static_cast<void*>(buffer.data()), tensor.data_ptr());
  auto const back = interop::tensor_over(buffer, {3, 2}, tensor);
  EXPECT_EQ(back.data_ptr(), tensor.data_ptr());
  EXPECT_THROW((void)interop::tensor_over(buffer, {3, 3}, tensor), Error);
}

TEST(TensorBuffers, refuse_what_cannot_be_sent) {
  EXPECT_THROW((void)interop::const_buffer(torch::Tensor()), Error);
  EXPECT_THROW((void)interop::const_buffer(torch::zeros({2, 3}).t()), Error);
  EXPECT_THROW((void)interop::const_buffer(torch::zeros({2}, torch::kBool)), Error);
  EXPECT_THROW((void)interop::const_buffer(torch::zeros({2, 2}).to_sparse()), Error);
}

}  // namespace
}  // namespace holdfast
