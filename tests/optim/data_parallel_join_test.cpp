#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <holdfast/optim/data_parallel.hpp>
#include <holdfast/optim/training_state.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/state_registry.hpp>

#include "members.hpp"

/// A member that joins a training while it runs.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
using test::Mlp;

constexpr auto kLimit = 60s;

/// What all members must hold after each step, by the first that says so.
class Truth {
 public:
  void tell(std::uint64_t step, Digest digest) {
    std::lock_guard const lock(mutex_);
    EXPECT_EQ(digests_.emplace(step, digest).first->second, digest) << "after step " << step;
    most_ = std::max(most_, step);
  }
  [[nodiscard]] std::uint64_t steps() const {
    std::lock_guard const lock(mutex_);
    return most_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Digest> digests_;
  std::uint64_t most_ = 0;
};

struct Shared {
  Truth truth;
  std::atomic<std::uint64_t> last_step{~std::uint64_t{0}};
  std::atomic<int> entered{0};
};

void train(Group group, std::uint64_t seed, Shared& shared) {
  torch::set_num_threads(1);
  bool const is_newcomer = group.is_newcomer();
  Mlp model(seed);
  std::uint64_t steps = 0;
  torch::optim::Adam adam(model->parameters(), 0.01);
  TrainingState state;
  state.add_model(model).add_optimizer(adam).add_counter("steps", steps);
  DataParallel parallel(group, model,
                        DataParallelOptions().rule("trimmed_mean").byzantine(0).worker_momentum(0.9).codec("int8"));
  auto const joined = parallel.share(
      state.registry(),
      [&] {
        torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0);
        adam.step();
        ++steps;
      },
      Deadline::after(kLimit));
  ASSERT_TRUE(joined) << joined.error().message();
  if (is_newcomer) {
    EXPECT_GT(steps, 0U);
    ++shared.entered;
  }
  shared.truth.tell(steps, state.registry().digest());
  while (steps < shared.last_step.load()) {
    adam.zero_grad();
    test::loss_of(model, test::make_batch(100 * steps + static_cast<std::uint64_t>(group.self()))).backward();
    auto const step = parallel.step();
    ASSERT_TRUE(step) << step.error().message();
    shared.truth.tell(steps, state.registry().digest());
  }
}

TEST(DataParallelJoin, a_newcomer_goes_on_from_the_members_step_with_their_parameters) {
  Config config;
  config.fabric = "shm";
  config.on_loss = "shrink";
  config.log_level = "off";
  auto groups = Group::in_threads(2, config);
  Shared shared;
  std::vector<std::jthread> members;
  auto const start = [&](auto make, std::uint64_t seed) {
    members.emplace_back([&shared, make, seed] {
      try {
        train(make(), seed, shared);
      } catch (std::exception const& error) {
        ADD_FAILURE() << error.what();
        shared.last_step.store(0);
      }
    });
  };
  for (auto const& group : groups) start([group] { return group; }, 1);
  auto const wait_for = [&](auto const& condition) {
    auto const limit = Deadline::after(kLimit);
    while (!condition() && !limit.has_passed()) std::this_thread::sleep_for(1ms);
    return condition();
  };
  EXPECT_TRUE(wait_for([&] { return shared.truth.steps() >= 10; }));
  auto newcomer = config;
  newcomer.join = groups.front().join_address();
  start([newcomer] { return Group::join(newcomer); }, 2);  // another start: nothing of it may be left
  EXPECT_TRUE(wait_for([&] { return shared.entered.load() == 1; }));
  auto const then = shared.truth.steps();
  EXPECT_TRUE(wait_for([&] { return shared.truth.steps() >= then + 50; }));
  EXPECT_EQ(groups.front().world_size(), 3);
  shared.last_step.store(shared.truth.steps() + 20);
  members.clear();
}

TEST(DataParallelJoin, another_model_is_refused_by_name) {
  Config config;
  config.on_loss = "shrink";
  config.log_level = "off";
  auto groups = Group::in_threads(2, config);
  std::atomic<bool> is_over{false};
  std::vector<std::jthread> members;
  for (auto const& group : groups)
    members.emplace_back([group, &is_over] {
      Mlp model(1);
      DataParallel const parallel(group, model, DataParallelOptions().worker_momentum(0.9));
      while (!is_over.load()) std::this_thread::sleep_for(1ms);
    });
  config.join = groups.front().join_address();
  auto const group = Group::join(config);
  Mlp wide(1, 17);
  std::string text = "nothing";
  try {
    DataParallel const parallel(group, wide, DataParallelOptions().worker_momentum(0.9));
  } catch (Error const& error) {
    text = error.what();
  }
  is_over.store(true);
  EXPECT_NE(text.find("first.weight = Float [17, 6]"), std::string::npos) << text;
  EXPECT_NE(text.find("first.weight = Float [16, 6]"), std::string::npos) << text;
}

}  // namespace
}  // namespace holdfast
