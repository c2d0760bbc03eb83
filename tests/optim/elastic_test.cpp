#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <random>
#include <set>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/optim/elastic_sampler.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"

/// Training while members come late or go: what each trains on, how much it counts, at what rate.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
using test::Mlp;

void run_elastic(int members, std::function<void(Group)> const& member) {
  torch::set_num_threads(1);
  Config config;
  config.op_timeout = 60s;
  config.on_loss = "shrink";
  config.log_level = "error";
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

bool has_contributed(Reduction const& step, MemberId member) {
  return std::any_of(step.contributors.begin(), step.contributors.end(),
                     [&](int rank) { return step.members[static_cast<std::size_t>(rank)] == member; });
}

/// Collects what members hold and compares.
class SameAtAll {
 public:
  void note(std::uint64_t step, std::vector<torch::Tensor> const& tensors) {
    std::lock_guard const lock(mutex_);
    auto const [entry, is_new] = seen_.try_emplace(step, test::copies(tensors));
    if (is_new) return;
    for (std::size_t i = 0; i < tensors.size(); ++i)
      EXPECT_TRUE(torch::equal(tensors[i], entry->second[i])) << "step " << step << ", tensor " << i;
  }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::vector<torch::Tensor>> seen_;
};

TEST(UnequalWork, keeps_the_mean_over_rows_when_members_hold_different_batches) {
  constexpr int kMembers = 3;
  run_elastic(kMembers, [](Group group) {
    Mlp model(1), single(1);
    DataParallel parallel(group, model);
    torch::optim::SGD sgd(model->parameters(), 0.3), single_sgd(single->parameters(), 0.3);
    auto const data = test::make_batch(4);
    // 24 rows, 7 a step: members hold 3, 2 and 2, and 1, 1 and 1 in the last one.
    ElasticSampler sampler(24, group, ElasticSamplerOptions().seed(3).global_batch(7));
    SamplePlan whole(24, {MemberId{0}}, {3, true, 0, 7});
    for (int epoch = 0; epoch < 2; ++epoch) {
      sampler.reset();
      if (epoch > 0) whole.begin_epoch(1);
      while (auto const rows = sampler.next(0)) {
        auto const pick = [&](std::vector<std::size_t> const& chosen) {
          std::vector<std::int64_t> places(chosen.begin(), chosen.end());
          auto const index = torch::tensor(places, torch::kLong);
          return test::Batch{data.x.index_select(0, index), data.y.index_select(0, index)};
        };
        sgd.zero_grad();
        parallel.set_weight(sampler.weight());
        test::loss_of(model, pick(*rows)).backward();
        auto const step = parallel.step(sgd);
        ASSERT_TRUE(step) << step.error().message();
        sampler.committed(*step);
        single_sgd.zero_grad();
        test::loss_of(single, pick(whole.rows_of(MemberId{0}))).backward();
        single_sgd.step();
        whole.committed(std::vector{MemberId{0}}, {MemberId{0}});
        test::expect_close(test::copies(model->parameters()), test::copies(single->parameters()), 1e-5);
      }
      EXPECT_TRUE(whole.is_epoch_over());
    }
  });
}

TEST(UnequalWork, leaves_out_a_member_without_rows) {
  run_elastic(3, [](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    auto const batch = test::make_batch(2);
    ElasticSampler sampler(2, group, ElasticSamplerOptions().batch(4).shuffle(false));
    sampler.reset();
    auto const rows = sampler.next(0);
    ASSERT_TRUE(rows);
    ASSERT_EQ(rows->size(), 1U);
    EXPECT_EQ(sampler.weight(), group.rank() < 2 ? 1 : 0);
    auto const row = static_cast<std::int64_t>(rows->front());
    parallel.set_weight(sampler.weight());
    test::loss_of(model, {batch.x.narrow(0, row, 1), batch.y.narrow(0, row, 1)}).backward();
    auto const step = parallel.synchronize();
    ASSERT_TRUE(step) << step.error().message();
    EXPECT_EQ(step->contributors, (std::vector<int>{0, 1}));
    Mlp single(1);
    test::loss_of(single, {batch.x.narrow(0, 0, 2), batch.y.narrow(0, 0, 2)}).backward();
    test::expect_close(test::gradients(*model), test::gradients(*single));
    sampler.committed(*step);
    EXPECT_FALSE(sampler.next(0));
  });
}

TEST(ElasticSampler, hands_out_each_row_once_when_members_leave_and_come_late) {
  auto const seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr std::size_t kRows = 150;
  std::mutex mutex;
  std::map<std::uint64_t, std::multiset<std::size_t>> used;  // by epoch, from the steps' contributors
  SameAtAll same;
  run_elastic(4, [&](Group group) {
    std::mt19937 random(seed + static_cast<unsigned>(group.rank()));
    int const start_rank = group.rank();
    Mlp model(1);
    DataParallel parallel(group, model, DataParallelOptions().slow_members(SlowMembers{SlowPolicy::skip, 1, 3ms}));
    torch::optim::SGD sgd(model->parameters(), 0.01);
    auto const data = test::make_batch(1);
    ElasticSampler sampler(kRows, group, ElasticSamplerOptions().seed(seed).batch(3));
    std::uint64_t steps = 0;
    for (int epoch = 0; epoch < 2; ++epoch) {
      sampler.reset();
      while (auto const rows = sampler.next(0)) {
        // Rank 3 goes in the first epoch, rank 1 in the second.
        if ((start_rank == 3 && epoch == 0 && steps == 5) || (start_rank == 1 && epoch == 1 && steps >= 25)) {
          static_cast<void>(group.leave(Deadline::after(1s)));  // others may be about to end, too
          return;
        }
        if (random() % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(random() % 15));
        sgd.zero_grad();
        parallel.set_weight(sampler.weight());
        auto const row = static_cast<std::int64_t>(rows->front() % 24);
        test::loss_of(model, {data.x.narrow(0, row, 1), data.y.narrow(0, row, 1)}).backward();
        auto const own = sampler.plan().rows_of(group.self());
        auto const step = parallel.step(sgd);
        ASSERT_TRUE(step) << step.error().message();
        ++steps;
        {
          std::lock_guard const lock(mutex);
          bool const counts = has_contributed(*step, group.self());
          if (counts) used[static_cast<std::uint64_t>(epoch)].insert(own.begin(), own.end());
        }
        same.note(steps, model->parameters());
        sampler.committed(*step);
      }
    }
  });
  for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
    ASSERT_EQ(used[epoch].size(), kRows) << "epoch " << epoch;
    for (std::size_t row = 0; row < kRows; ++row) EXPECT_EQ(used[epoch].count(row), 1U) << row;
  }
}

TEST(ElasticSampler, serves_a_data_loader_and_goes_on_where_a_saved_one_was) {
  run_elastic(2, [](Group group) {
    struct Numbers : torch::data::Dataset<Numbers> {
      torch::data::Example<> get(std::size_t index) override {
        return {torch::tensor({static_cast<float>(index)}), torch::zeros({1})};
      }
      [[nodiscard]] torch::optional<std::size_t> size() const override { return 40; }
    };
    auto const both = [&](ElasticSampler& sampler) {
      Reduction step;
      step.contributors = {0, 1};
      for (auto const& member : group.view().members) step.members.push_back(member.id);
      sampler.committed(step);
    };
    ElasticSampler sampler(40, group, ElasticSamplerOptions().seed(9).batch(4));
    auto loader = torch::data::make_data_loader(Numbers().map(torch::data::transforms::Stack<>()), sampler,
                                                torch::data::DataLoaderOptions(4));
    std::set<float> seen;
    std::vector<std::byte> in_the_middle;
    std::vector<float> after;
    int batches = 0;
    for (auto& batch : *loader) {
      auto const* const values = batch.data.data_ptr<float>();
      seen.insert(values, values + batch.data.numel());
      if (batches >= 2) after.insert(after.end(), values, values + batch.data.numel());
      both(sampler);
      if (++batches == 2) in_the_middle = sampler.save_state();
    }
    EXPECT_EQ(batches, 5);
    EXPECT_EQ(seen.size(), 20U);
    EXPECT_EQ(sampler.epoch(), 0U);

    ElasticSampler again(40, group, ElasticSamplerOptions().seed(9).batch(4));
    ASSERT_TRUE(again.load_state(in_the_middle));
    again.reset();
    std::vector<float> resumed;
    while (auto const rows = again.next(4)) {
      for (auto const row : *rows) resumed.push_back(static_cast<float>(row));
      both(again);
    }
    EXPECT_EQ(resumed, after);
    again.reset();
    EXPECT_EQ(again.epoch(), 1U);
  });
}

TEST(ViewChange, is_told_to_all_on_their_training_threads_at_the_same_step) {
  std::mutex mutex;
  std::map<std::uint64_t, std::set<std::string>> said;
  std::atomic<int> calls{0};
  run_elastic(3, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model);
    torch::optim::SGD sgd(model->parameters(), 0.1);
    auto const thread = std::this_thread::get_id();
    std::uint64_t steps = 0;
    std::size_t own_rows = 0;
    parallel.on_view_change([&](View const& before, View const& now) {
      EXPECT_EQ(std::this_thread::get_id(), thread);
      std::lock_guard const lock(mutex);
      said[steps].insert(std::to_string(before.world_size()) + " to " + std::to_string(now.world_size()));
      calls.fetch_add(1);
    });
    parallel.on_view_change(keep_global_batch(group, 13, [&](std::size_t rows) { own_rows = rows; }));
    bool const goes = group.rank() == 0;
    auto const self = group.self();
    while (steps < 8) {
      if (goes && steps == 4) {
        ASSERT_TRUE(group.leave(Deadline::after(10s)));
        return;
      }
      sgd.zero_grad();
      test::loss_of(model, test::make_batch(steps)).backward();
      auto const step = parallel.step(sgd);
      ASSERT_TRUE(step) << step.error().message();
      ++steps;
      if (steps == 1) {
        EXPECT_EQ(own_rows, self == step->members[0] ? 5U : 4U);
      }
    }
    EXPECT_EQ(own_rows, group.rank() == 0 ? 7U : 6U);
  });
  ASSERT_EQ(said.size(), 2U);
  EXPECT_EQ(said.begin()->second, (std::set<std::string>{"0 to 3"}));
  EXPECT_EQ(said.rbegin()->second, (std::set<std::string>{"3 to 2"}));
  EXPECT_EQ(calls.load(), 5);
}

TEST(ViewChange, scales_learning_rates_in_all_groups_at_once_or_over_some_steps) {
  for (std::int64_t const warmup : {std::int64_t{0}, std::int64_t{4}}) {
    SameAtAll same;
    run_elastic(4, [&](Group group) {
      Mlp model(1);
      DataParallel parallel(group, model);
      auto options = torch::optim::AdamOptions(0.4);
      std::vector<torch::optim::OptimizerParamGroup> groups;
      groups.emplace_back(model->first->parameters(), std::make_unique<torch::optim::AdamOptions>(0.1));
      std::vector<torch::Tensor> rest = model->second->parameters();
      for (auto const& parameter : model->last->parameters()) rest.push_back(parameter);
      groups.emplace_back(rest);
      torch::optim::Adam adam(groups, options);
      auto const scale = scale_learning_rate(adam, LearningRateScaleOptions().warmup_steps(warmup));
      parallel.on_view_change(scale);
      bool const goes = group.rank() == 2;
      for (std::uint64_t steps = 0; steps < 12; ++steps) {
        if (goes && steps == 3) {
          ASSERT_TRUE(group.leave(Deadline::after(10s)));
          return;
        }
        adam.zero_grad();
        test::loss_of(model, test::make_batch(steps)).backward();
        auto const step = parallel.step(adam);
        ASSERT_TRUE(step) << step.error().message();
        if (step->members.size() == 4) {
          EXPECT_DOUBLE_EQ(scale.scale(), 1);
        }
        same.note(steps, model->parameters());
      }
      EXPECT_DOUBLE_EQ(scale.scale(), 0.75);
      EXPECT_NEAR(adam.param_groups()[0].options().get_lr(), 0.075, 1e-12);
      EXPECT_NEAR(adam.param_groups()[1].options().get_lr(), 0.3, 1e-12);
      auto const saved = scale.save_state();
      auto other = scale_learning_rate(adam);
      ASSERT_TRUE(other.load_state(saved));
      EXPECT_DOUBLE_EQ(other.scale(), 0.75);
      EXPECT_FALSE(other.load_state(std::span(saved).first(5)));
    });
  }
}

TEST(LateMembers, train_on_with_what_the_others_agreed_on) {
  for (std::string const rule : {"mean", "nnm+trimmed_mean"}) {
    SameAtAll same;
    std::atomic<std::uint64_t> ended{0};
    run_elastic(4, [&](Group group) {
      Mlp model(1);
      DataParallel parallel(group, model,
                            DataParallelOptions()
                                .rule(rule)
                                .byzantine(rule == "mean" ? 0 : 1)
                                .worker_momentum(0.9)
                                .first_bucket_bytes(64)
                                .bucket_bytes(600)
                                .slow_members(SlowMembers{SlowPolicy::skip, 2, group.rank() == 1 ? 50ms : 600'000ms}));
      torch::optim::SGD sgd(model->parameters(), 0.1);
      bool const is_slow = group.rank() == 1;
      for (std::uint64_t step = 1; step <= 8; ++step) {
        sgd.zero_grad();
        bool const is_late = is_slow && step > 1 && step < 7;
        auto const loss = test::loss_of(model, test::make_batch(step).part(group.rank(), 4));
        // In one step the thread is caught in the middle of backward: some buckets have left, others will not.
        auto const wait = [&] {
          auto const deadline = Deadline::after(60s);
          while (ended.load() < step && !deadline.has_passed()) std::this_thread::sleep_for(1ms);
        };
        unsigned hook = 0;
        if (is_late && step == 4) hook = model->first->weight.register_hook([&](torch::Tensor const&) { wait(); });
        if (is_late && step != 4) wait();
        loss.backward();
        if (is_late && step == 4) model->first->weight.remove_hook(hook);
        auto const outcome = parallel.step(sgd);
        ASSERT_TRUE(outcome) << outcome.error().message();
        if (!is_slow) ended.store(std::max(ended.load(), step));
        if (is_late) {
          EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 2, 3})) << rule << ", step " << step;
        }
        same.note(step, model->parameters());
      }
    });
  }
}

TEST(BackupWorkers, leave_the_slowest_behind_and_end_with_the_same_bits) {
  SameAtAll same;
  std::atomic<int> left_out{0};
  run_elastic(4, [&](Group group) {
    Mlp model(1);
    DataParallel parallel(group, model, DataParallelOptions().backup_workers(true));
    torch::optim::SGD sgd(model->parameters(), 0.05);
    for (std::uint64_t step = 0; step < 40; ++step) {
      sgd.zero_grad();
      if (group.rank() == 3) std::this_thread::sleep_for(30ms);
      auto const loss = test::loss_of(model, test::make_batch(7).part(group.rank(), 4));
      loss.backward();
      auto const outcome = parallel.step(sgd, loss);
      ASSERT_TRUE(outcome) << outcome.error().message();
      ASSERT_TRUE(outcome->spread.has_value());
      EXPECT_GT(outcome->spread->mean_squared, 0);
      if (outcome->contributors.size() < 4) left_out.fetch_add(1);
      same.note(step, model->parameters());
    }
    EXPECT_THROW(
        {
          test::loss_of(model, test::make_batch(0)).backward();
          static_cast<void>(parallel.step(sgd));
        },
        Error);
  });
  EXPECT_GT(left_out.load(), 0) << "nobody was ever left out";
}

}  // namespace
}  // namespace holdfast
