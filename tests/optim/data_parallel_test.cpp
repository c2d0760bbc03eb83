#include <atomic>
#include <limits>
#include <mutex>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"

namespace holdfast {
namespace {

using test::Batch;
using test::Mlp;
using test::run_members;

std::vector<torch::Tensor> whole_batch_gradients(std::uint64_t model_seed, Batch const& batch) {
  Mlp model(model_seed);
  test::loss_of(model, batch).backward();
  return test::copies(test::gradients(*model));
}

struct Setting {
  int members;
  char const* fabric;
};

class EveryWorld : public testing::TestWithParam<Setting> {};

TEST_P(EveryWorld, gradient_equals_that_of_the_whole_batch) {
  auto const [members, fabric] = GetParam();
  run_members(
      members,
      [&](Group group) {
        Mlp model(1);
        // Buckets of one or two layers.
        DataParallel parallel(group, model, DataParallelOptions().first_bucket_bytes(64).bucket_bytes(1200));
        EXPECT_GT(parallel.buckets(), 2U);
        for (std::uint64_t step = 0; step < 3; ++step) {
          auto const batch = test::make_batch(step);
          model->zero_grad();
          test::loss_of(model, batch.part(group.rank(), group.world_size())).backward();
          auto const outcome = parallel.synchronize();
          ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
          EXPECT_EQ(outcome->contributors.size(), static_cast<std::size_t>(group.world_size()));
          test::expect_close(test::gradients(*model), whole_batch_gradients(1, batch));
        }
      },
      fabric);
}

INSTANTIATE_TEST_SUITE_P(Fabrics, EveryWorld,
                         testing::Values(Setting{1, "loopback"}, Setting{2, "loopback"}, Setting{3, "loopback"},
                                         Setting{4, "loopback"}, Setting{1, "shm"}, Setting{2, "shm"},
                                         Setting{3, "shm"}, Setting{4, "shm"}),
                         [](auto const& tested) {
                           return std::string(tested.param.fabric) + "_" + std::to_string(tested.param.members);
                         });

TEST(DataParallel, members_hold_the_same_bits_after_training) {
  std::mutex mutex;
  std::vector<std::vector<torch::Tensor>> results;
  run_members(3, [&](Group group) {
    Mlp model(static_cast<std::uint64_t>(10 + group.rank()));  // different: rank 0's counts
    DataParallel parallel(group, model);
    torch::optim::SGD sgd(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
    for (std::uint64_t step = 0; step < 5; ++step) {
      sgd.zero_grad();
      test::loss_of(model, test::make_batch(step).part(group.rank(), 3)).backward();
      ASSERT_TRUE(parallel.step(sgd).has_value());
    }
    std::lock_guard const lock(mutex);
    results.push_back(test::copies(model->parameters()));
  });
  ASSERT_EQ(results.size(), 3U);
  for (auto const& other : results)
    for (std::size_t i = 0; i < other.size(); ++i) EXPECT_TRUE(torch::equal(other[i], results[0][i])) << i;
}

TEST(DataParallel, coded_gradients_are_close_equal_at_all_members_and_small_on_the_wire) {
  for (int const members : {2, 3}) {
    for (auto const* const codec : {"bf16", "int8", "e3m0", "int2"}) {
      std::mutex mutex;
      std::vector<std::vector<torch::Tensor>> results;
      run_members(members, [&](Group group) {
        Mlp model(1, 128);
        DataParallel parallel(group, model, DataParallelOptions().codec(codec));
        torch::optim::SGD sgd(model->parameters(), 0.1);
        std::uint64_t uncoded_bytes = 0;
        for (auto const& parameter : model->parameters())
          uncoded_bytes += static_cast<std::uint64_t>(parameter.numel()) * 4 * 2 *
                           static_cast<std::uint64_t>(members - 1) / static_cast<std::uint64_t>(members);
        for (std::uint64_t step = 0; step < 4; ++step) {
          auto const batch = test::make_batch(step);
          sgd.zero_grad();
          test::loss_of(model, batch.part(group.rank(), members)).backward();
          auto const outcome = parallel.step(sgd);
          ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
          EXPECT_LT(outcome->sent_bytes, uncoded_bytes * 7 / 10) << codec;
        }
        std::lock_guard const lock(mutex);
        results.push_back(test::copies(model->parameters()));
      });
      ASSERT_EQ(results.size(), static_cast<std::size_t>(members));
      Mlp plain(1, 128);
      torch::optim::SGD sgd(plain->parameters(), 0.1);
      for (std::uint64_t step = 0; step < 4; ++step) {
        sgd.zero_grad();
        test::loss_of(plain, test::make_batch(step)).backward();
        sgd.step();
      }
      for (std::size_t i = 0; i < results[0].size(); ++i) {
        for (auto const& other : results) EXPECT_TRUE(torch::equal(other[i], results[0][i])) << codec << ' ' << i;
        // Below 8 bits single elements may be off by a third of the largest; training then shows in the loss.
        float const error = (results[0][i] - plain->parameters()[i]).abs().max().item<float>();
        EXPECT_LT(error, Codec::parse(codec).bits_per_element() >= 8 ? 0.01F : 0.2F) << codec << ' ' << i;
      }
    }
  }
}

TEST(DataParallel, unknown_codec_and_impossible_feedback_are_refused) {
  run_members(1, [](Group group) {
    Mlp model(1);
    EXPECT_THROW(DataParallel(group, model, DataParallelOptions().codec("fp4")), Error);
    EXPECT_THROW(DataParallel(group, model, DataParallelOptions().codec("int2").error_feedback(1.5)), Error);
  });
}

class EitherZeroGrad : public testing::TestWithParam<bool> {};

TEST_P(EitherZeroGrad, neither_loses_nor_repeats_gradients) {
  bool const set_to_none = GetParam();
  run_members(2, [&](Group group) {
    Mlp model(1), single(1);
    DataParallel parallel(group, model);
    torch::optim::SGD sgd(model->parameters(), 0.2), single_sgd(single->parameters(), 0.2);
    for (std::uint64_t step = 0; step < 4; ++step) {
      auto const batch = test::make_batch(step);
      sgd.zero_grad(set_to_none);
      test::loss_of(model, batch.part(group.rank(), 2)).backward();
      ASSERT_TRUE(parallel.step(sgd).has_value());
      single_sgd.zero_grad(set_to_none);
      test::loss_of(single, batch).backward();
      single_sgd.step();
      test::expect_close(test::gradients(*model), test::gradients(*single));
      test::expect_close(model->parameters(), single->parameters());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(SetToNone, EitherZeroGrad, testing::Bool());

TEST(DataParallel, without_zero_grad_gradients_add_up_as_in_plain_torch) {
  run_members(2, [&](Group group) {
    Mlp model(1), single(1);
    DataParallel parallel(group, model);
    for (std::uint64_t step = 0; step < 3; ++step) {
      auto const batch = test::make_batch(step);
      test::loss_of(model, batch.part(group.rank(), 2)).backward();
      ASSERT_TRUE(parallel.synchronize().has_value());
      test::loss_of(single, batch).backward();
      test::expect_close(test::gradients(*model), test::gradients(*single));
    }
  });
}

TEST(DataParallel, no_sync_accumulates_and_sends_nothing) {
  run_members(2, [&](Group group) {
    for (bool const set_to_none : {true, false}) {
      Mlp model(1), single(1);
      DataParallel parallel(group, model);
      torch::optim::SGD sgd(model->parameters(), 0.2), single_sgd(single->parameters(), 0.2);
      for (std::uint64_t step = 0; step < 3; ++step) {
        auto const first = test::make_batch(2 * step), second = test::make_batch(2 * step + 1);
        sgd.zero_grad(set_to_none);
        auto const before = parallel.communicator().sent_bytes();
        {
          auto const guard = parallel.no_sync();
          test::loss_of(model, first.part(group.rank(), 2)).backward();
        }
        EXPECT_EQ(parallel.communicator().sent_bytes(), before);
        test::loss_of(model, second.part(group.rank(), 2)).backward();
        ASSERT_TRUE(parallel.step(sgd).has_value());
        single_sgd.zero_grad(set_to_none);
        test::loss_of(single, first).backward();
        test::loss_of(single, second).backward();
        single_sgd.step();
        test::expect_close(model->parameters(), single->parameters());
      }
    }
  });
}

TEST(DataParallel, everything_under_no_sync_leaves_at_synchronize) {
  run_members(2, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    auto const batch = test::make_batch(1);
    {
      auto const guard = parallel.no_sync();
      test::loss_of(model, batch.part(group.rank(), 2)).backward();
    }
    ASSERT_TRUE(parallel.synchronize().has_value());
    test::expect_close(test::gradients(*model), whole_batch_gradients(1, batch));
  });
}

TEST(DataParallel, announced_backward_passes_are_summed) {
  run_members(2, [&](Group group) {
    Mlp model(1), single(1);
    DataParallel parallel(group, model, DataParallelOptions().backward_passes(2));
    for (int step = 0; step < 2; ++step) {
      auto const batch = test::make_batch(static_cast<std::uint64_t>(step));
      model->zero_grad();
      single->zero_grad();
      for (int pass = 0; pass < 2; ++pass) {
        test::loss_of(model, batch.part(group.rank(), 2)).backward();
        test::loss_of(single, batch).backward();
      }
      ASSERT_TRUE(parallel.synchronize().has_value());
      test::expect_close(test::gradients(*model), test::gradients(*single));
    }
  });
}

TEST(DataParallel, an_unannounced_second_pass_is_refused_with_the_remedy) {
  run_members(1, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    auto const batch = test::make_batch(1);
    test::loss_of(model, batch).backward();
    try {
      test::loss_of(model, batch).backward();
      ADD_FAILURE() << "accepted";
    } catch (std::exception const& error) {
      EXPECT_NE(std::string(error.what()).find("no_sync"), std::string::npos) << error.what();
    }
    EXPECT_TRUE(parallel.synchronize().has_value());
  });
}

TEST(DataParallel, unused_parameters_contribute_zeros) {
  run_members(3, [&](Group group) {
    torch::nn::Sequential model(torch::nn::Linear(2, 1), torch::nn::Linear(2, 1));
    {
      torch::NoGradGuard const no_grad;
      for (auto& parameter : model->parameters()) parameter.fill_(1);
    }
    DataParallel parallel(group, model, DataParallelOptions().first_bucket_bytes(1).bucket_bytes(1));
    // Rank 1 uses the second layer alone, the others the first; nobody's gradient may wait for the missing ones.
    auto& used = *model[group.rank() == 1 ? 1 : 0]->as<torch::nn::Linear>();
    for (int step = 0; step < 2; ++step) {
      model->zero_grad();
      used.forward(torch::full({1, 2}, 3.0)).sum().backward();
      auto const outcome = parallel.synchronize();
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      EXPECT_FLOAT_EQ(model->parameters()[0].grad()[0][0].item<float>(), 2);
      EXPECT_FLOAT_EQ(model->parameters()[2].grad()[0][0].item<float>(), 1);
    }
  });
}

TEST(DataParallel, sparse_gradients_leave_dense) {
  run_members(2, [&](Group group) {
    torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 2).sparse(true));
    DataParallel parallel(group, table);
    table(torch::tensor({group.rank(), 4})).sum().backward();
    ASSERT_TRUE(parallel.synchronize().has_value());
    auto const gradient = table->weight.grad();
    EXPECT_TRUE(torch::equal(gradient.select(1, 0), torch::tensor({0.5F, 0.5F, 0.F, 0.F, 1.F}))) << gradient;
  });
}

TEST(DataParallel, other_element_types_have_buckets_of_their_own) {
  run_members(2, [&](Group group) {
    std::vector<torch::Tensor> parameters;
    for (auto const type : {torch::kFloat, torch::kDouble, torch::kBFloat16, torch::kHalf})
      parameters.push_back(torch::zeros({3}, torch::dtype(type)).set_requires_grad(true));
    DataParallel parallel(group, parameters, DataParallelOptions().worker_momentum(0.5));
    EXPECT_EQ(parallel.buckets(), 4U);
    for (int step = 0; step < 2; ++step) {
      for (auto& parameter : parameters) parameter.mutable_grad() = torch::Tensor();
      torch::Tensor sum = torch::zeros({});
      for (auto& parameter : parameters) sum = sum + parameter.sum().to(torch::kFloat);
      (sum * (group.rank() == 0 ? 1 : 3)).backward();
      ASSERT_TRUE(parallel.synchronize().has_value());
      for (auto& parameter : parameters) {
        EXPECT_EQ(parameter.grad().scalar_type(), parameter.scalar_type());
        EXPECT_EQ(parameter.grad()[1].item<float>(), step == 0 ? 1.0F : 1.5F);
      }
    }
  });
}

TEST(DataParallel, aggregate_may_be_clipped_in_place) {
  run_members(2, [&](Group group) {
    Mlp model(1), single(1);
    DataParallel parallel(group, model);
    torch::optim::SGD sgd(model->parameters(), 0.5), single_sgd(single->parameters(), 0.5);
    for (std::uint64_t step = 0; step < 3; ++step) {
      auto const batch = test::make_batch(step);
      sgd.zero_grad();
      test::loss_of(model, batch.part(group.rank(), 2)).backward();
      ASSERT_TRUE(parallel.synchronize().has_value());
      auto const norm = torch::nn::utils::clip_grad_norm_(model->parameters(), 0.01);
      sgd.step();
      single_sgd.zero_grad();
      test::loss_of(single, batch).backward();
      EXPECT_NEAR(norm, torch::nn::utils::clip_grad_norm_(single->parameters(), 0.01), 1e-5);
      single_sgd.step();
      test::expect_close(model->parameters(), single->parameters());
    }
  });
}

TEST(DataParallel, weights_count_samples) {
  run_members(2, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    auto const batch = test::make_batch(5);
    Batch const own = group.rank() == 0 ? Batch{batch.x.narrow(0, 0, 18), batch.y.narrow(0, 0, 18)}
                                        : Batch{batch.x.narrow(0, 18, 6), batch.y.narrow(0, 18, 6)};
    parallel.set_weight(static_cast<double>(own.x.size(0)));
    test::loss_of(model, own).backward();
    ASSERT_TRUE(parallel.synchronize().has_value());
    test::expect_close(test::gradients(*model), whole_batch_gradients(1, batch));
  });
}

TEST(DataParallel, a_row_of_nan_is_screened_and_named) {
  run_members(4, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model, DataParallelOptions().rule("nnm+trimmed_mean").byzantine(1));
    torch::optim::SGD sgd(model->parameters(), 0.1);
    for (std::uint64_t step = 0; step < 3; ++step) {
      sgd.zero_grad();
      auto loss = test::loss_of(model, test::make_batch(step).part(group.rank(), 4));
      if (group.rank() == 2 && step == 1) loss = loss * std::numeric_limits<float>::quiet_NaN();
      loss.backward();
      auto outcome = parallel.step(sgd);
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      // An honest row may be nobody's neighbour: let in, and given no weight.
      std::erase_if(outcome->excluded, [](auto const& e) { return e.cause == Exclusion::Cause::no_weight; });
      if (step == 1) {
        ASSERT_EQ(outcome->excluded.size(), 1U);
        EXPECT_EQ(outcome->excluded[0].rank, 2);
        EXPECT_FALSE(outcome->excluded[0].reason.empty());
        EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 1, 3}));
      } else {
        EXPECT_TRUE(outcome->excluded.empty());
      }
      for (auto const& parameter : model->parameters()) EXPECT_TRUE(parameter.isfinite().all().item<bool>());
    }
  });
}

TEST(DataParallel, a_round_that_its_rule_fails_skips_the_step_and_no_more) {
  run_members(3, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    torch::optim::SGD sgd(model->parameters(), 0.1);
    for (std::uint64_t step = 0; step < 3; ++step) {
      auto const before = test::copies(model->parameters());
      sgd.zero_grad();
      auto loss = test::loss_of(model, test::make_batch(step).part(group.rank(), 3));
      if (group.rank() == 0 && step == 1) loss = loss * std::numeric_limits<float>::infinity();
      loss.backward();
      auto const outcome = parallel.step(sgd);
      if (step != 1) {
        ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
        EXPECT_FALSE(torch::equal(before[0], model->parameters()[0]));
      } else {
        ASSERT_FALSE(outcome.has_value());
        EXPECT_EQ(outcome.error().code, Errc::too_many_faulty_rows);
        for (std::size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(torch::equal(before[i], model->parameters()[i]));
      }
    }
  });
}

TEST(DataParallel, pending_keeps_the_exchange_open) {
  std::atomic<bool> late{false};
  run_members(2, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    auto const batch = test::make_batch(3);
    if (group.rank() == 1)
      while (!late) std::this_thread::yield();
    test::loss_of(model, batch.part(group.rank(), 2)).backward();
    auto outcome = parallel.synchronize(Deadline::now());
    if (group.rank() == 0) {
      ASSERT_FALSE(outcome.has_value());
      EXPECT_EQ(outcome.error().code, Errc::pending);
      EXPECT_THROW(test::loss_of(model, batch).backward(), std::exception);
      late = true;
    }
    if (!outcome) outcome = parallel.synchronize();
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
    test::expect_close(test::gradients(*model), whole_batch_gradients(1, batch));
  });
}

TEST(DataParallel, worker_momentum_is_applied_before_the_aggregation) {
  for (auto const convention :
       {MomentumConvention::averaged, MomentumConvention::paper, MomentumConvention::accumulated})
    run_members(2, [&](Group group) {
      auto weight = torch::zeros({2}).set_requires_grad(true);
      auto unused = torch::zeros({1}).set_requires_grad(true);
      DataParallel parallel(group, std::vector<torch::Tensor>{weight, unused},
                            DataParallelOptions().worker_momentum(0.75).momentum_convention(convention));
      std::vector<float> momentum(1, 0);
      for (int step = 0; step < 3; ++step) {
        weight.mutable_grad() = torch::Tensor();
        (weight.sum() * (step + 1) * (group.rank() == 0 ? 4 : 12)).backward();
        ASSERT_TRUE(parallel.synchronize().has_value());
        std::vector<float> const mean{8.0F * static_cast<float>(step + 1)};
        update_worker_momentum(momentum, mean, 0.75, convention, step == 0);
        EXPECT_FLOAT_EQ(weight.grad()[0].item<float>(), momentum[0]) << name(convention) << " step " << step;
        EXPECT_EQ(unused.grad()[0].item<float>(), 0);
      }
    });
}

TEST(DataParallel, decides_on_each_layer_by_itself_in_scope_layer) {
  for (auto const scope : {Scope::layer, Scope::step})
    run_members(4, [&](Group group) {
      std::vector<torch::Tensor> layers;
      for (int layer = 0; layer < 4; ++layer) layers.push_back(torch::zeros({8}).set_requires_grad(true));
      DataParallel parallel(group, layers, DataParallelOptions().rule("mda").byzantine(1).scope(scope));
      // Each member lies in one layer: no member is honest in all of them, but in each layer three are.
      auto loss = torch::zeros({});
      for (int layer = 0; layer < 4; ++layer)
        loss = loss + layers[static_cast<std::size_t>(layer)].sum() * (layer == group.rank() ? 1000 : group.rank());
      loss.backward();
      ASSERT_TRUE(parallel.synchronize().has_value());
      float most = 0;
      for (int layer = 0; layer < 4; ++layer) {
        float const found = layers[static_cast<std::size_t>(layer)].grad()[0].item<float>();
        most = std::max(most, found);
        if (scope == Scope::layer) {
          EXPECT_FLOAT_EQ(found, static_cast<float>(6 - layer) / 3) << layer;
        }
      }
      if (scope == Scope::step) {
        EXPECT_GT(most, 300.0F) << "one decision cannot leave out all four";
      }
    });
}

TEST(DataParallel, a_replaced_contribution_does_not_reach_the_momentum) {
  run_members(2, [&](Group group) {
    auto weight = torch::zeros({2}).set_requires_grad(true);
    bool lies = true;
    auto options = DataParallelOptions().worker_momentum(0.5);
    if (group.rank() == 1)
      options.on_contribution([&](std::span<float> contribution) {
        EXPECT_EQ(contribution.size(), 2U);
        if (lies) std::fill(contribution.begin(), contribution.end(), 100.F);
      });
    DataParallel parallel(group, std::vector<torch::Tensor>{weight}, options);
    (weight.sum() * 4).backward();
    ASSERT_TRUE(parallel.synchronize().has_value());
    EXPECT_EQ(weight.grad()[0].item<float>(), 51);  // (2 + 100) / 2
    lies = false;
    weight.mutable_grad() = torch::Tensor();
    (weight.sum() * 4).backward();
    ASSERT_TRUE(parallel.synchronize().has_value());
    EXPECT_EQ(weight.grad()[0].item<float>(), 3);
  });
}

TEST(DataParallel, two_models_share_a_communicator_on_two_streams) {
  run_members(2, [&](Group group) {
    Communicator communicator(group);
    Mlp a(1), b(2);
    DataParallel first(communicator, a, DataParallelOptions().stream("a"));
    DataParallel second(communicator, b, DataParallelOptions().stream("b"));
    auto const batch = test::make_batch(1);
    test::loss_of(a, batch.part(group.rank(), 2)).backward();
    test::loss_of(b, batch.part(group.rank(), 2)).backward();
    ASSERT_TRUE(second.synchronize().has_value());
    ASSERT_TRUE(first.synchronize().has_value());
    test::expect_close(test::gradients(*a), whole_batch_gradients(1, batch));
    test::expect_close(test::gradients(*b), whole_batch_gradients(2, batch));
  });
}

TEST(DataParallel, two_models_share_a_group) {
  run_members(2, [&](Group group) {
    Mlp a(1), b(2);
    DataParallel first(group, a), second(group, b);
    auto const batch = test::make_batch(1);
    for (int step = 0; step < 2; ++step) {
      a->zero_grad();
      b->zero_grad();
      test::loss_of(a, batch.part(group.rank(), 2)).backward();
      test::loss_of(b, batch.part(group.rank(), 2)).backward();
      ASSERT_TRUE(first.synchronize().has_value());
      ASSERT_TRUE(second.synchronize().has_value());
      test::expect_close(test::gradients(*a), whole_batch_gradients(1, batch));
      test::expect_close(test::gradients(*b), whole_batch_gradients(2, batch));
    }
  });
}

TEST(DataParallel, leaves_the_model_as_it_was_when_it_goes) {
  run_members(2, [&](Group group) {
    Mlp model(1);
    auto const batch = test::make_batch(1);
    torch::Tensor kept;
    {
      DataParallel parallel(group, model);
      test::loss_of(model, batch.part(group.rank(), 2)).backward();
      ASSERT_TRUE(parallel.synchronize().has_value());
      kept = model->parameters()[0].grad();
    }
    EXPECT_FALSE(model->parameters()[0].grad().defined());
    EXPECT_TRUE(kept.isfinite().all().item<bool>());  // the memory lives as long as the tensor
    test::loss_of(model, batch).backward();
    test::expect_close(test::gradients(*model), whole_batch_gradients(1, batch));
    DataParallel again(group, model);
    EXPECT_THROW(DataParallel(group, model), Error);
  });
}

torch::Tensor closure_loss(Mlp& model, Batch const& batch) {
  model->zero_grad();
  auto loss = test::loss_of(model, batch);
  loss.backward();
  return loss;
}

template <typename Optimizer>
void trains_as_in_one_process(std::function<std::unique_ptr<Optimizer>(std::vector<torch::Tensor>)> const& make,
                              double tolerance) {
  run_members(2, [&](Group group) {
    Mlp model(1), single(1);
    DataParallel parallel(group, model);
    auto const optimizer = make(model->parameters());
    auto const reference = make(single->parameters());
    for (std::uint64_t step = 0; step < 5; ++step) {
      auto const batch = test::make_batch(step);
      auto const own = batch.part(group.rank(), 2);
      if constexpr (std::is_same_v<Optimizer, torch::optim::LBFGS>) {
        auto const outcome = parallel.step(*optimizer, [&] { return closure_loss(model, own); });
        ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
        reference->step([&] { return closure_loss(single, batch); });
      } else {
        (void)closure_loss(model, own);
        ASSERT_TRUE(parallel.step(*optimizer).has_value());
        (void)closure_loss(single, batch);
        reference->step();
      }
    }
    test::expect_close(model->parameters(), single->parameters(), tolerance);
  });
}

// Adaptive optimizers divide by gradients that may be tiny, which magnifies rounding; hence two tolerances.
template <typename Optimizer, typename Options>
void trains_with(Options const& options, double tolerance) {
  trains_as_in_one_process<Optimizer>(
      [options](std::vector<torch::Tensor> parameters) { return std::make_unique<Optimizer>(parameters, options); },
      tolerance);
}

TEST(DataParallelOptimizers, sgd) {
  trains_with<torch::optim::SGD>(torch::optim::SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.01), 1e-5);
}
TEST(DataParallelOptimizers, adam) {
  trains_with<torch::optim::Adam>(torch::optim::AdamOptions(0.01), 1e-3);
}
TEST(DataParallelOptimizers, adamw) {
  trains_with<torch::optim::AdamW>(torch::optim::AdamWOptions(0.01), 1e-3);
}
TEST(DataParallelOptimizers, adagrad) {
  trains_with<torch::optim::Adagrad>(torch::optim::AdagradOptions(0.01), 1e-3);
}
TEST(DataParallelOptimizers, rmsprop) {
  trains_with<torch::optim::RMSprop>(torch::optim::RMSpropOptions(0.01), 1e-3);
}
TEST(DataParallelOptimizers, lbfgs) {
  trains_with<torch::optim::LBFGS>(torch::optim::LBFGSOptions(0.1).max_iter(4), 1e-3);
}

}  // namespace
}  // namespace holdfast
