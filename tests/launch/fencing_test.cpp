// `holdfast run` as the arbiter of its ranks: members that are killed or hang are left behind, and the rest goes on.
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "training_job.hpp"

namespace holdfast::launch::test {
namespace {

using namespace std::chrono_literals;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

std::string run(int ranks) {
  return "exec $HOLDFAST run -n " + std::to_string(ranks) + " --events events";
}

TEST(Fencing, one_host_shrinks_from_8_to_1_whatever_dies_first) {
  constexpr int kRanks = 8;
  auto const seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<int> alive(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) alive[static_cast<std::size_t>(rank)] = rank;
  TrainingJob job(kRanks, run(kRanks));
  ASSERT_TRUE(job.are_running(alive));
  while (alive.size() > 1) {
    auto const victim = alive[random() % alive.size()];
    std::erase(alive, victim);
    auto const view = job.member(alive.front()).view.load();
    job.strike(victim, alive.size() % 2 == 0 ? SIGSTOP : SIGKILL);
    ASSERT_TRUE(job.go_on(alive, view)) << "with " << alive.size() << " left after rank " << victim << "\n"
                                        << job.events();
  }
  auto const result = job.finish(alive);
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("7 of 8 ranks were lost; the others went on and ended well"));
  EXPECT_EQ(job.member(alive.front()).wrong.load(), 0U);
}

TEST(Fencing, the_event_log_tells_who_was_suspected_on_what_evidence_and_what_followed) {
  TrainingJob job(3, run(3));
  ASSERT_TRUE(job.are_running({0, 1, 2}));
  auto const view = job.member(0).view.load();
  job.strike(1, SIGSTOP);
  ASSERT_TRUE(job.go_on({0, 2}, view)) << job.events();
  auto const result = job.finish({0, 2});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, ContainsRegex("member 1 \\(pid [0-9]+\\) is fenced: accused by member 0, and its process is "
                                        "stopped"));
  auto const events = job.events();
  for (auto const* const line :
       {R"("rank":0,"event":"suspicion","view":1,"member":1,"by":0,"certain":false,"evidence":"silent for )",
        R"("rank":-1,"event":"fence",)", R"("rank":-1,"event":"certificate",)", R"("event":"fence_request","view":1,)",
        R"("rank":2,"event":"view","view":2,"world_size":2,"members":"0,2")", R"("rank":-1,"event":"exit",)"})
    EXPECT_THAT(events, HasSubstr(line));
}

TEST(Fencing, members_that_are_merely_slow_are_not_ended) {
  TrainingJob job(3, run(3));
  ASSERT_TRUE(job.are_running({0, 1, 2}));
  // Stopped for less than the timeout, again and again.
  for (int turn = 0; turn < 5; ++turn) {
    job.strike(2, SIGSTOP);
    std::this_thread::sleep_for(200ms);
    job.strike(2, SIGCONT);
    auto const commits = job.member(2).commits.load();
    ASSERT_TRUE(job.all({2}, [commits](auto& one) { return one.commits.load() > commits + 3; }));
  }
  auto const result = job.finish({0, 1, 2});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, ::testing::Not(HasSubstr("fenced")));
}

}  // namespace
}  // namespace holdfast::launch::test
