#include <algorithm>
#include <chrono>
#include <filesystem>
#include <new>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/optim/data_parallel.hpp>

#include "members.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;

// What a forked member leaves behind for the parent to judge.
struct Report {
  bool is_done = false;
  std::uint64_t steps = 0;
  Errc code{};
  bool names_the_victim = false;
  std::int64_t ended_ns = 0;  // on the clock that all processes of the machine share
};

std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

constexpr int kMembers = 3;
constexpr int kVictim = 1;
constexpr std::uint64_t kLastStep = 4;

void train(std::filesystem::path const& meeting, int rank, int signal, Report* reports) {
  torch::set_num_threads(1);
  Config config;
  config.rank = rank;
  config.world_size = kMembers;
  config.rendezvous = "file://" + meeting.string();
  config.job_id = "data_parallel_fault_test";
  config.fabric = "shm";
  config.log_level = "error";
  config.op_timeout = 30s;
  config.on_loss = "end";
  config.heartbeat_timeout = 2s;
  auto group = Group::join(config);
  auto const victim = group.view().members[kVictim].id;
  test::Mlp model(1);
  DataParallel parallel(group, model, DataParallelOptions().first_bucket_bytes(64).bucket_bytes(64));
  torch::optim::SGD sgd(model->parameters(), 0.1);
  auto& report = reports[rank];
  for (std::uint64_t step = 0; step < 1000; ++step) {
    sgd.zero_grad();
    auto loss = test::loss_of(model, test::make_batch(step).part(rank, kMembers));
    if (rank == kVictim && step == kLastStep)
      // In the middle of backward: some buckets have left, others will not.
      model->first->weight.register_hook([&](torch::Tensor const&) {
        report.ended_ns = now_ns();
        raise(signal);
      });
    loss.backward();
    auto const outcome = parallel.step(sgd);
    report.ended_ns = now_ns();
    if (!outcome) {
      report.code = outcome.error().code;
      report.names_the_victim =
          std::count(outcome.error().failed_members.begin(), outcome.error().failed_members.end(), victim) == 1;
      break;
    }
    ++report.steps;
  }
  report.is_done = true;
}

class LostMember : public testing::TestWithParam<int> {};

TEST_P(LostMember, is_named_by_the_others_within_five_seconds) {
  auto pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  std::filesystem::path const meeting = pattern;
  void* const memory =
      mmap(nullptr, sizeof(Report) * kMembers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const reports = new (memory) Report[kMembers];
  std::vector<pid_t> children;
  for (int rank = 0; rank < kMembers; ++rank) {
    pid_t const child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      int status = 1;
      try {
        train(meeting, rank, GetParam(), reports);
        status = 0;
      } catch (std::exception const& error) {
        std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      }
      _exit(status);
    }
    children.push_back(child);
  }
  auto const limit = std::chrono::steady_clock::now() + 40s;
  std::vector<int> left = {0, 2};
  while (!left.empty() && std::chrono::steady_clock::now() < limit) {
    std::erase_if(left,
                  [&](int rank) { return waitpid(children[static_cast<std::size_t>(rank)], nullptr, WNOHANG) != 0; });
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_TRUE(left.empty()) << "rank " << left.front() << " hangs";
  for (int const rank : left) {
    kill(children[static_cast<std::size_t>(rank)], SIGKILL);
    waitpid(children[static_cast<std::size_t>(rank)], nullptr, 0);
  }
  kill(children[kVictim], SIGKILL);
  waitpid(children[kVictim], nullptr, 0);

  for (int const rank : {0, 2}) {
    auto const& report = reports[rank];
    EXPECT_TRUE(report.is_done) << "rank " << rank;
    EXPECT_EQ(report.steps, kLastStep) << "rank " << rank;
    EXPECT_EQ(report.code, Errc::member_lost) << "rank " << rank << ": " << name(report.code);
    EXPECT_TRUE(report.names_the_victim) << "rank " << rank;
    auto const took = std::chrono::nanoseconds(report.ended_ns - reports[kVictim].ended_ns);
    EXPECT_LT(took, 5s) << "rank " << rank;
    EXPECT_GT(took, 0s) << "rank " << rank << " ended before the victim";
  }
  munmap(memory, sizeof(Report) * kMembers);
  std::filesystem::remove_all(meeting);
}

INSTANTIATE_TEST_SUITE_P(Signals, LostMember, testing::Values(SIGKILL, SIGSTOP),
                         [](auto const& tested) { return tested.param == SIGKILL ? "killed" : "stopped"; });

}  // namespace
}  // namespace holdfast
