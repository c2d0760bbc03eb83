#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>

/// What becomes of a robust rule when members die and those that are left are too few for it. The same program is the
/// test and, started as `rule_bounds member FALLBACK`, each of the members.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr int kMembers = 5;
constexpr int kRoundsBefore = 3;
constexpr int kRoundsAfter = 3;

// ---------------------------------------------------------------------------------------------------- the member

int complain(int round, std::string const& what) {
  std::fprintf(stderr, "round %d: %s\n", round, what.c_str());
  return 1;
}

/// krum with f = 1 needs five members. Rank 4 dies; the others must not go on with fewer faults tolerated.
int run_member(std::string const& fallback) {
  auto group = Group::join(Config::from_environment());
  int const first_rank = group.rank();
  {
    Communicator communicator(group);
    AggregateOptions options;
    options.rule = Rule::parse("krum");
    options.byzantine = 1;
    if (fallback != "none") options.fallback = Rule::parse(fallback);
    auto bucket = communicator.allocate(10'000, DType::float32);
    auto* const values = reinterpret_cast<float*>(bucket.contribution().data());
    for (int number = 1; number <= kRoundsBefore + kRoundsAfter; ++number) {
      bool const is_after = number > kRoundsBefore;
      if (is_after && first_rank == kMembers - 1) ::raise(SIGKILL);
      std::fill_n(values, bucket.elements(), first_rank == 1 ? 1000.0F : static_cast<float>(10 + first_rank));
      auto round = communicator.begin();
      round.aggregate(bucket, options);
      auto const outcome = round.commit(Deadline::after(60s));
      if (is_after && fallback == "none") {
        if (outcome) return complain(number, "went on below the bound of its rule");
        if (outcome.error().code != Errc::f_out_of_bounds) return complain(number, outcome.error().message());
        continue;
      }
      if (!outcome) return complain(number, outcome.error().message());
      if (outcome->used_fallback != is_after) return complain(number, "chose the wrong rule of the two");
      if (outcome->contributors.size() != (is_after ? kMembers - 1U : kMembers + 0U))
        return complain(number, std::to_string(outcome->contributors.size()) + " contributors");
      // Of 10, 12, 13 and 1000 (and 14) krum takes one of the close ones, the trimmed mean the middle two.
      float const result = *reinterpret_cast<float const*>(bucket.result().data());
      if (is_after ? result != 12.5F : !(result >= 10 && result <= 14))
        return complain(number, "the result is " + std::to_string(result));
    }
  }
  return group.leave(Deadline::after(60s)) ? 0 : complain(0, "did not leave in order");
}

// ------------------------------------------------------------------------------------------------------ the test

/// @return exit statuses by rank; -signal for a member that a signal ended
std::vector<int> run_job(std::string const& fallback) {
  std::string directory = fs::temp_directory_path() / "holdfast-bounds-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) throw std::runtime_error("no temporary folder");
  std::string const program = fs::read_symlink("/proc/self/exe");
  std::vector<pid_t> children;
  for (int rank = 0; rank < kMembers; ++rank) {
    pid_t const child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (auto const& [key, value] :
           std::map<std::string, std::string>{{"HOLDFAST_RANK", std::to_string(rank)},
                                              {"HOLDFAST_WORLD_SIZE", std::to_string(kMembers)},
                                              {"HOLDFAST_RENDEZVOUS", "file://" + directory},
                                              {"HOLDFAST_FABRIC", "shm"},
                                              {"HOLDFAST_ON_LOSS", "shrink"}})
        ::setenv(key.c_str(), value.c_str(), 1);
      ::execl(program.c_str(), program.c_str(), "member", fallback.c_str(), nullptr);
      ::_exit(127);
    }
    children.push_back(child);
  }
  std::vector<int> statuses(children.size(), -1000);
  auto const until = std::chrono::steady_clock::now() + 90s;
  for (std::size_t rank = 0; rank < children.size(); ++rank) {
    int status = 0;
    while (::waitpid(children[rank], &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > until) ::kill(children[rank], SIGKILL);
      std::this_thread::sleep_for(5ms);
    }
    statuses[rank] = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  fs::remove_all(directory);
  return statuses;
}

std::vector<int> const kOnlyTheLastDied{0, 0, 0, 0, -SIGKILL};

TEST(RuleBounds, fail_every_round_loudly_once_too_few_members_are_left) {
  EXPECT_EQ(run_job("none"), kOnlyTheLastDied);
}

TEST(RuleBounds, give_way_to_the_fallback_that_was_named_once_too_few_members_are_left) {
  EXPECT_EQ(run_job("trimmed_mean"), kOnlyTheLastDied);
}

}  // namespace
}  // namespace holdfast

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "member") return holdfast::run_member(argv[2]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
