#include <functional>
#include <memory>
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/distributed_sampler.hpp>
#include <holdfast/optim/fed_vote.hpp>
#include <holdfast/optim/monna.hpp>
#include <holdfast/optim/spsa.hpp>
#include <holdfast/optim/training_state.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"

namespace holdfast {
namespace {

using test::Mlp;
using Parameters = std::vector<torch::Tensor>;
using Make = std::function<std::unique_ptr<torch::optim::Optimizer>(Parameters)>;

struct Kind {
  char const* name;
  Make make;
};

template <typename Optimizer, typename Options>
Make maker(Options options) {
  return [options](Parameters parameters) { return std::make_unique<Optimizer>(std::move(parameters), options); };
}

std::vector<Kind> kinds() {
  using namespace torch::optim;
  return {{"sgd", maker<SGD>(SGDOptions(0.1).momentum(0.9).nesterov(true))},
          {"adam", maker<Adam>(AdamOptions(0.01).amsgrad(true))},
          {"adamw", maker<AdamW>(AdamWOptions(0.01).weight_decay(0.1))},
          {"rmsprop", maker<RMSprop>(RMSpropOptions(0.01).momentum(0.5).centered(true))},
          {"adagrad", maker<Adagrad>(AdagradOptions(0.1).initial_accumulator_value(0.1))},
          {"lbfgs",
           maker<LBFGS>(LBFGSOptions(0.5).max_iter(3).history_size(4).line_search_fn(std::string("strong_wolfe")))}};
}

// A program as a user would write it, in miniature.
struct Program {
  Mlp model;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  std::int64_t step = 0;
  TrainingState state;

  explicit Program(Make const& make, std::uint64_t seed = 1) : model(seed), optimizer(make(model->parameters())) {
    state.add_model(model).add_optimizer(*optimizer).add_counter("step", step);
  }
  void train(int steps) {
    for (int i = 0; i < steps; ++i, ++step) {
      auto const batch = test::make_batch(100 + static_cast<std::uint64_t>(step));
      optimizer->step([&] {
        optimizer->zero_grad();
        auto loss = test::loss_of(model, batch);
        loss.backward();
        return loss;
      });
    }
  }
};

std::vector<std::byte> const& part(StateSnapshot const& snapshot, std::string const& name) {
  for (auto const& each : snapshot)
    if (each.name == name) return each.bytes;
  throw std::runtime_error("no part " + name);
}

TEST(TrainingState, equal_optimizers_give_equal_bytes_and_go_on_bit_for_bit_when_restored) {
  for (auto const& [name, make] : kinds()) {
    SCOPED_TRACE(name);
    Program first(make), second(make);
    first.train(4), second.train(4);
    first.optimizer->param_groups()[0].options().set_lr(0.007);
    EXPECT_FALSE(first.state.registry().digest() == second.state.registry().digest()) << "the rate is state";
    second.optimizer->param_groups()[0].options().set_lr(0.007);
    EXPECT_EQ(first.state.registry().digest(), second.state.registry().digest());
    auto const snapshot = first.state.registry().snapshot();

    Program fresh(make, 2);
    auto const restored = fresh.state.registry().restore(snapshot);
    ASSERT_TRUE(restored) << restored.error().message();
    EXPECT_EQ(fresh.step, 4);
    EXPECT_EQ(fresh.optimizer->param_groups()[0].options().get_lr(), 0.007);
    first.train(3), fresh.train(3);
    EXPECT_EQ(first.state.registry().snapshot(), fresh.state.registry().snapshot());
  }
}

TEST(TrainingState, goes_back_to_a_state_without_steps) {
  for (auto const& [name, make] : kinds()) {
    SCOPED_TRACE(name);
    Program program(make);
    auto const start = program.state.registry().snapshot();
    program.train(2);
    auto const trained = program.state.registry().snapshot();
    ASSERT_TRUE(program.state.registry().restore(start));
    program.train(2);
    EXPECT_EQ(program.state.registry().snapshot(), trained);
  }
}

TEST(TrainingState, refuses_other_optimizers_and_damaged_bytes_without_change) {
  auto const all = kinds();
  Program adam(all[1].make), adamw(all[2].make);
  adam.train(2), adamw.train(2);
  auto const refused = adam.state.registry().restore(adamw.state.registry().snapshot());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::mismatch);
  EXPECT_NE(refused.error().detail.find("state of AdamW"), std::string::npos) << refused.error().detail;

  std::uint64_t const seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (auto const& [name, make] : all) {
    Program program(make);
    program.train(2);
    auto const bytes = part(program.state.registry().snapshot(), "optimizer");
    TrainingState state;
    state.add_optimizer(*program.optimizer);
    for (int i = 0; i < 200; ++i) {
      auto damaged = bytes;
      if (i % 2 == 0)
        damaged.resize(random() % bytes.size());
      else
        damaged[random() % std::min<std::size_t>(bytes.size(), 400)] ^= std::byte{1} << (random() % 8);
      auto const here = state.registry().digest();
      auto const loaded =
          state.registry().restore({{"optimizer", Sharing::replicated, {"U8", {damaged.size()}}, damaged}});
      if (!loaded) {
        EXPECT_EQ(state.registry().digest(), here) << name << ": " << loaded.error().message();
      }
      if (i % 2 == 0) {
        EXPECT_FALSE(loaded) << name;
      }
      ASSERT_TRUE(state.registry().restore({{"optimizer", Sharing::replicated, {"U8", {bytes.size()}}, bytes}}));
    }
  }
}

TEST(TrainingState, an_optimizer_of_ones_own_needs_functions) {
  struct Own : torch::optim::Optimizer {
    struct Options : torch::optim::OptimizerCloneableOptions<Options> {
      double get_lr() const override { return 0; }
      void set_lr(double) override {}
    };
    explicit Own(Parameters parameters) : Optimizer(std::move(parameters), std::make_unique<Options>()) {}
    torch::Tensor step(LossClosure) override { return {}; }
  };
  Mlp model(1);
  Own own(model->parameters());
  TrainingState state;
  EXPECT_THROW(state.add_optimizer(own), Error);
}

struct NormalisedImpl : torch::nn::Module {
  NormalisedImpl()
      : convolution(register_module("convolution", torch::nn::Conv2d(3, 4, 2))),
        norm(register_module("norm", torch::nn::BatchNorm2d(4))) {}
  torch::nn::Conv2d convolution;
  torch::nn::BatchNorm2d norm;
};
TORCH_MODULE(Normalised);

TEST(TrainingState, has_parameters_and_buffers_by_name_type_and_shape_in_any_memory_format) {
  Normalised model;
  model->convolution->weight.set_data(model->convolution->weight.data().contiguous(at::MemoryFormat::ChannelsLast));
  TrainingState state;
  state.add_model(model);
  auto snapshot = state.registry().snapshot();
  std::map<std::string, StateLayout> layouts;
  for (auto const& each : snapshot) layouts[each.name] = each.layout;
  EXPECT_EQ(layouts.at("convolution.weight"), (StateLayout{"F32", {4, 3, 2, 2}}));
  EXPECT_EQ(layouts.at("norm.running_mean"), (StateLayout{"F32", {4}}));
  EXPECT_EQ(layouts.at("norm.num_batches_tracked"), (StateLayout{"I64", {}}));
  auto const flat = model->convolution->weight.detach().contiguous();
  EXPECT_EQ(std::memcmp(part(snapshot, "convolution.weight").data(), flat.data_ptr(), flat.nbytes()), 0);

  torch::NoGradGuard const no_grad;
  auto const weight = model->convolution->weight.clone();
  model->convolution->weight.zero_();
  // As torch::load does: other memory for the same tensor.
  model->norm->running_mean.set_data(torch::full({4}, 7.0F));
  EXPECT_FALSE(state.registry().snapshot() == snapshot);
  ASSERT_TRUE(state.registry().restore(snapshot));
  EXPECT_TRUE(torch::equal(model->convolution->weight, weight));
  EXPECT_TRUE(torch::equal(model->norm->running_mean, torch::zeros({4})));
}

TEST(TrainingState, torchs_generator_goes_on) {
  TrainingState state;
  state.add_random();
  (void)torch::randn({3});
  auto const snapshot = state.registry().snapshot();
  EXPECT_EQ(snapshot[0].sharing, Sharing::own);
  auto const next = torch::randn({50});
  ASSERT_TRUE(state.registry().restore(snapshot));
  EXPECT_TRUE(torch::equal(torch::randn({50}), next));
  EXPECT_FALSE(state.registry().restore({{"random/cpu", Sharing::own, {"U8", {3}}, std::vector<std::byte>(3)}}));
}

TEST(TrainingState, a_sampler_goes_on_within_the_epoch_through_a_data_loader) {
  auto const features = torch::arange(20).view({20, 1});
  auto const dataset =
      torch::data::datasets::TensorDataset(features).map(torch::data::transforms::Stack<torch::data::TensorExample>());
  auto const options = DistributedSamplerOptions().seed(4);
  DistributedSampler sampler(20, 1, 2, options);
  TrainingState state;
  state.add_sampler(sampler);
  auto loader = torch::data::make_data_loader(dataset, sampler, torch::data::DataLoaderOptions(3));
  std::vector<torch::Tensor> drawn;
  std::optional<StateSnapshot> snapshot;
  for (int epoch = 0; epoch < 2; ++epoch)
    for (auto& batch : *loader) {
      drawn.push_back(batch.data.clone());
      if (drawn.size() == 6) snapshot = state.registry().snapshot();
    }
  ASSERT_EQ(drawn.size(), 8U);

  DistributedSampler again(20, 1, 2, options);
  TrainingState state_again;
  state_again.add_sampler(again);
  auto loader_again = torch::data::make_data_loader(dataset, again, torch::data::DataLoaderOptions(3));
  ASSERT_TRUE(state_again.registry().restore(*snapshot));
  std::size_t next = 6;
  for (auto& batch : *loader_again) EXPECT_TRUE(torch::equal(batch.data, drawn.at(next++)));
  EXPECT_EQ(next, 8U);
  EXPECT_EQ(again.epoch(), 1U);

  // Two ranks had 6 rows each; of four each has 3, and nobody gets those 12 again.
  std::set<std::size_t> rest;
  for (int rank = 0; rank < 4; ++rank) {
    DistributedSampler other(20, rank, 4, options);
    ASSERT_TRUE(other.load_position(part(*snapshot, "sampler")));
    other.reset();
    auto const rows = other.next(100);
    ASSERT_TRUE(rows);
    EXPECT_EQ(rows->size(), 2U);
    rest.insert(rows->begin(), rows->end());
  }
  auto const order = DistributedSampler::permutation(20, 4, 1);
  EXPECT_EQ(rest, std::set<std::size_t>(order.begin() + 12, order.end()));

  DistributedSampler elsewhere(21, 0, 2, options);
  EXPECT_EQ(elsewhere.load_position(part(*snapshot, "sampler")).error().code, Errc::mismatch);
  EXPECT_EQ(elsewhere.load_position(std::vector<std::byte>(3)).error().code, Errc::corrupt_message);
}

// Trains 4 steps with `make`'s scheme, or 2 and the rest from a snapshot in fresh objects: the same bits.
template <typename Scheme>
void expect_resumes(int members, std::function<std::unique_ptr<Scheme>(Communicator&, Mlp&)> const& make,
                    std::function<void(Scheme&, Mlp&, int rank, int step)> const& step, Sharing model_sharing) {
  std::vector<StateSnapshot> middle(static_cast<std::size_t>(members)), end = middle;
  auto const run = [&](int begin, int steps, bool is_resumed) {
    test::run_members(members, [&](Group group) {
      auto const at = static_cast<std::size_t>(group.rank());
      Communicator communicator(group);
      Mlp model(is_resumed ? 9 : 1);
      auto const scheme = make(communicator, model);
      TrainingState state;
      state.add_model(model, "", model_sharing).add(*scheme);
      if (is_resumed) {
        auto const restored = state.registry().restore(middle[at]);
        if (!restored) throw std::runtime_error(restored.error().message());
      }
      for (int i = begin; i < begin + steps; ++i) step(*scheme, model, group.rank(), i);
      if (begin == 0 && steps == 2) {
        middle[at] = state.registry().snapshot();
      } else if (!is_resumed) {
        end[at] = state.registry().snapshot();
      } else {
        EXPECT_EQ(state.registry().snapshot(), end[at]) << "rank " << at;
      }
    });
  };
  run(0, 4, false);
  run(0, 2, false);
  ASSERT_FALSE(middle[0] == end[0]);
  EXPECT_EQ(digest_of([&] {
              StateSnapshot shared;
              for (auto const& each : middle[0])
                if (each.sharing == Sharing::replicated) shared.push_back(each);
              return shared;
            }()),
            digest_of([&] {
              StateSnapshot shared;
              for (auto const& each : middle.back())
                if (each.sharing == Sharing::replicated) shared.push_back(each);
              return shared;
            }()))
      << "replicated parts are equal at all members";
  run(2, 2, true);
}

void backward(Mlp& model, int rank, int step) {
  for (auto& parameter : model->parameters()) parameter.mutable_grad() = at::Tensor();
  test::loss_of(model, test::make_batch(static_cast<std::uint64_t>(10 * step + rank))).backward();
}

template <typename T>
void require(Outcome<T> const& outcome) {
  if (!outcome) throw std::runtime_error(outcome.error().message());
}

TEST(TrainingState, data_parallel_goes_on_with_momentum_residuals_and_the_rules_memory) {
  for (bool const is_watched : {false, true}) {
    auto const make = [&](Communicator& communicator, Mlp& model) {
      auto options = DataParallelOptions()
                         .rule("centered_clipping")
                         .byzantine(1)
                         .worker_momentum(0.9)
                         .momentum_convention(MomentumConvention::paper)
                         .codec("int4")
                         .error_feedback(0.9)
                         .first_bucket_bytes(256)
                         .bucket_bytes(512)
                         .broadcast(false);
      if (is_watched) options.on_contribution([](std::span<float>) {});
      return std::make_unique<DataParallel>(communicator, model, options);
    };
    expect_resumes<DataParallel>(
        3, make,
        [](DataParallel& parallel, Mlp& model, int rank, int step) {
          torch::optim::SGD sgd(model->parameters(), 0.1);
          backward(model, rank, step);
          require(parallel.step(sgd));
        },
        Sharing::replicated);
  }
}

TEST(TrainingState, says_when_the_data_parallel_has_gone) {
  auto group = Group::join(Config{});
  Mlp model(1);
  TrainingState state;
  {
    DataParallel parallel(group, model, DataParallelOptions().worker_momentum(0.5));
    state.add(parallel);
    EXPECT_TRUE(state.registry().contains("gradients/momentum/first.weight"));
    EXPECT_NO_THROW((void)state.registry().snapshot(Sharing::own));
  }
  EXPECT_THROW((void)state.registry().snapshot(Sharing::own), Error);
}

TEST(TrainingState, monna_votes_and_slopes_go_on) {
  expect_resumes<Monna>(
      3,
      [](Communicator& communicator, Mlp& model) {
        return std::make_unique<Monna>(communicator, model, MonnaOptions().byzantine(1).learning_rate(0.1));
      },
      [](Monna& monna, Mlp& model, int rank, int step) {
        backward(model, rank, step);
        require(monna.step());
      },
      Sharing::own);
  expect_resumes<FedVote>(
      3, [](Communicator& communicator, Mlp& model) { return std::make_unique<FedVote>(communicator, model); },
      [](FedVote& vote, Mlp& model, int rank, int step) {
        backward(model, rank, step);
        vote.local_step();
        require(vote.vote());
      },
      Sharing::replicated);
  expect_resumes<Spsa>(
      2, [](Communicator& communicator, Mlp& model) { return std::make_unique<Spsa>(communicator, model); },
      [](Spsa& spsa, Mlp& model, int rank, int step) {
        auto const batch = test::make_batch(static_cast<std::uint64_t>(10 * step + rank));
        require(spsa.step([&] { return test::loss_of(model, batch).item<double>(); }));
      },
      Sharing::replicated);
}

}  // namespace
}  // namespace holdfast
