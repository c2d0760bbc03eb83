#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/error.hpp>

/// Members as processes, one of which comes late to its rounds, while others may die.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr int kMembers = 4;
constexpr int kSlow = 2;
constexpr std::size_t kSteps = 12;

/// What the processes share with the test; made before they are forked.
struct Shared {
  struct Step {
    std::uint64_t hash = 0;
    std::uint32_t contributors = 0;  // bit for each rank of the view
    std::uint32_t members = 0;
  };
  std::atomic<std::uint64_t> ended{0};  // steps that a member other than the slow one has seen committed
  std::atomic<int> evicted{0};
  std::array<std::array<Step, kSteps + 1>, kMembers> steps{};
  std::array<std::atomic<bool>, kMembers> is_done{};
};

struct Plan {
  std::string fabric;
  SlowPolicy policy = SlowPolicy::skip;
  std::uint64_t kill_at = 0;  // 0: nobody dies
};

void wait_for(std::function<bool()> const& is_met) {
  auto const deadline = Deadline::after(60s);
  while (!is_met() && !deadline.has_passed()) std::this_thread::sleep_for(1ms);
}

int run_member(int rank, Plan const& plan, fs::path const& directory, Shared& shared) {
  Config config;
  config.rank = rank;
  config.world_size = kMembers;
  config.rendezvous = "file://" + directory.string();
  config.job_id = "slow_member_test";
  config.fabric = plan.fabric;
  config.log_level = "off";
  config.on_loss = "shrink";
  auto group = Group::join(config);
  // Each member judges itself: the others are never late, however busy the machine is.
  CommunicatorOptions options;
  options.slow_members = SlowMembers{plan.policy, 2, rank == kSlow ? 100ms : 600'000ms};
  Communicator communicator(group, options);
  auto first = communicator.allocate(200'000, DType::float32);
  auto second = communicator.allocate(999, DType::float32);
  for (std::uint64_t step = 1; step <= kSteps; ++step) {
    bool const is_late = rank == kSlow && step > 4 && step <= 9;
    if (is_late) wait_for([&] { return shared.ended.load() >= step; });
    if (rank == 1 && step == plan.kill_at) ::raise(SIGKILL);
    for (auto const* const bucket : {&first, &second}) {
      auto* const data = reinterpret_cast<float*>(bucket->contribution().data());
      for (std::size_t i = 0; i < bucket->elements(); ++i)
        data[i] = static_cast<float>((i * 7 + step * 13) % 1009) / 3 + static_cast<float>(rank);
    }
    auto round = communicator.begin();
    round.aggregate(first);
    round.aggregate(second);
    auto const outcome = round.commit(Deadline::after(60s));
    if (!outcome) {
      if (outcome.error().code != Errc::evicted) return 3;
      shared.evicted.store(rank + 1);
      shared.is_done[static_cast<std::size_t>(rank)].store(true);
      return 0;
    }
    auto& seen = shared.steps[static_cast<std::size_t>(rank)][step];
    for (auto const* const bucket : {&first, &second})
      seen.hash =
          seen.hash * 31 + std::hash<std::string_view>()(
                               {reinterpret_cast<char const*>(bucket->result().data()), bucket->result().bytes()});
    for (int const contributor : outcome->contributors) seen.contributors |= 1U << contributor;
    seen.members = static_cast<std::uint32_t>(outcome->members.size());
    if (rank != kSlow) {
      auto before = shared.ended.load();
      while (before < step && !shared.ended.compare_exchange_weak(before, step)) {
      }
    }
  }
  shared.is_done[static_cast<std::size_t>(rank)].store(true);
  // Nobody's end is to be taken for a loss.
  wait_for([&] {
    for (int other = 0; other < kMembers; ++other)
      if (!shared.is_done[static_cast<std::size_t>(other)].load() && !(plan.kill_at != 0 && other == 1)) return false;
    return true;
  });
  return 0;
}

class SlowMember : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    char text[] = "/tmp/holdfast-slow-XXXXXX";
    directory_ = ::mkdtemp(text);
    void* const memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared;
  }
  void TearDown() override {
    for (auto const pid : pids_) ::kill(pid, SIGKILL);
    ::munmap(shared_, sizeof(Shared));
    fs::remove_all(directory_);
  }

  void run(Plan const& plan) {
    for (int rank = 0; rank < kMembers; ++rank) {
      auto const pid = ::fork();
      ASSERT_GE(pid, 0);
      if (pid == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        int status = 4;
        try {
          status = run_member(rank, plan, directory_, *shared_);
        } catch (std::exception const&) {
        }
        ::_exit(status);
      }
      pids_.push_back(pid);
    }
    for (int rank = 0; rank < kMembers; ++rank) {
      int status = 0;
      auto& pid = pids_[static_cast<std::size_t>(rank)];
      ASSERT_EQ(::waitpid(pid, &status, 0), pid);
      bool const is_victim = plan.kill_at != 0 && rank == 1;
      EXPECT_TRUE(is_victim ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0)
          << "rank " << rank << " ended with " << status;
    }
    pids_.clear();
  }

  /// The slow one of its view: members are numbered by ascending id, so it moves down when rank 1 is gone.
  static bool has_slow(Shared::Step const& step) {
    int const rank = step.members == kMembers ? kSlow : kSlow - 1;
    return (step.contributors >> rank & 1U) != 0;
  }

  void expect_same_bits(std::vector<int> const& ranks) const {
    for (std::uint64_t step = 1; step <= kSteps; ++step) {
      auto const& expected = shared_->steps[0][step];
      EXPECT_NE(expected.hash, 0U) << "step " << step;
      for (int const rank : ranks) {
        auto const& seen = shared_->steps[static_cast<std::size_t>(rank)][step];
        EXPECT_EQ(seen.hash, expected.hash) << "rank " << rank << ", step " << step;
        EXPECT_EQ(seen.contributors, expected.contributors) << "rank " << rank << ", step " << step;
      }
    }
  }

  fs::path directory_;
  Shared* shared_ = nullptr;
  std::vector<pid_t> pids_;
};

TEST_P(SlowMember, is_left_out_of_five_rounds_and_ends_with_the_same_bits) {
  run({GetParam(), SlowPolicy::skip, 0});
  expect_same_bits({1, 2, 3});
  for (std::uint64_t step = 5; step <= 9; ++step) EXPECT_FALSE(has_slow(shared_->steps[0][step])) << step;
}

TEST_P(SlowMember, is_left_out_while_another_one_dies) {
  run({GetParam(), SlowPolicy::skip, 7});
  expect_same_bits({2, 3});
  for (std::uint64_t step = 5; step <= 9; ++step) EXPECT_FALSE(has_slow(shared_->steps[0][step])) << step;
  EXPECT_EQ(shared_->steps[0][kSteps].members, 3U);
}

TEST_P(SlowMember, leaves_where_that_is_the_policy_and_the_others_go_on) {
  run({GetParam(), SlowPolicy::evict, 0});
  EXPECT_EQ(shared_->evicted.load(), kSlow + 1);
  expect_same_bits({1, 3});
  EXPECT_EQ(shared_->steps[0][4].members, 4U);
  EXPECT_EQ(shared_->steps[0][kSteps].members, 3U);
}

INSTANTIATE_TEST_SUITE_P(Fabrics, SlowMember, ::testing::Values("shm", "tcp"),
                         [](auto const& tested) { return tested.param; });

}  // namespace
}  // namespace holdfast
