// `holdfast run --hosts` with agents on this machine, and on the hosts of a network-namespace rig where there is one.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "capture.hpp"
#include "training_job.hpp"

namespace holdfast::launch::test {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

// --- agents that are started without a network: `env` in place of ssh ------------------------------------------------

constexpr char kAgents[] = "exec $HOLDFAST run --agent 'env HOST={host}' --hosts h0:2,h1 ";

TEST(Hosts, ranks_are_numbered_over_the_hosts_and_output_comes_back_as_from_one) {
  Shell const shell;
  auto const result = shell.run(std::string(kAgents) +
                                "--log-dir logs -x COLOUR=red -- sh -c 'echo $RANK/$WORLD_SIZE "
                                "$LOCAL_RANK/$LOCAL_WORLD_SIZE $HOST $COLOUR; echo error >&2'");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(ContainsRegex("(^|\n)0/3 0/2 h0 red\n"), HasSubstr("[1] 1/3 1/2 h0 red\n"),
                                HasSubstr("[2] 2/3 0/1 h1 red\n")));
  EXPECT_THAT(result.err, AllOf(HasSubstr("[0] error\n"), HasSubstr("[2] error\n"), Not(HasSubstr("\x1e"))));
  EXPECT_EQ(contents(shell.path() / "logs" / "rank-2.out"), "2/3 0/1 h1 red\n");
}

TEST(Hosts, a_secret_is_made_and_stands_on_no_command_line) {
  Shell const shell;
  auto const result = shell.run(std::string(kAgents) + R"(-- sh -c '
    secret=$(cat $HOLDFAST_JOB_SECRET_FILE); echo $(stat -c %a $HOLDFAST_JOB_SECRET_FILE) ${#secret}
    for p in /proc/[0-9]*; do if tr "\0" " " < $p/cmdline 2> /dev/null | grep -q "$secret"; then echo found; fi; done')");
  EXPECT_THAT(result.out, AllOf(HasSubstr("[2] 600 64\n"), Not(HasSubstr("found")))) << result.err;
}

TEST(Hosts, what_a_rank_returns_is_returned) {
  Shell const shell;
  EXPECT_EQ(shell.run(std::string(kAgents) + "-- sh -c 'exit 75'").status, 75);
  EXPECT_EQ(shell.run(std::string(kAgents) + "-- sh -c 'if [ $RANK = 2 ]; then exit 5; fi'").status, 5);
}

TEST(Hosts, a_stop_signal_reaches_every_host) {
  Shell const shell;
  auto const result = shell.run(R"(
    $HOLDFAST run --agent env --hosts A=1:1,B=2:1 -- sh -c "trap 'exit 75' TERM; touch ready-\$RANK; while :; do sleep 0.05; done" & run=$!
    until [ -e ready-0 ] && [ -e ready-1 ]; do sleep 0.05; done
    kill -TERM $run; wait $run; echo $?)");
  EXPECT_EQ(result.out, "75\n") << result.err;
}

TEST(Hosts, a_host_without_an_agent_is_named_before_any_rank_runs) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST run --agent 'sh -c \"exit 9\" {host}' --hosts h0:2 -- touch ran");
  EXPECT_EQ(result.status, 1) << result.err;
  EXPECT_THAT(result.err, HasSubstr("no agent on host h0"));
  EXPECT_FALSE(std::filesystem::exists(shell.path() / "ran"));
}

TEST(Hosts, refuses_what_cannot_be) {
  Shell const shell;
  for (auto const& [arguments, message] :
       {std::pair{"run --hosts h0:2 --hostfile x true", "both given"},
        std::pair{"run --hosts h0:2 -n 3 true", "add up"}, std::pair{"run --hosts h0 --mpi true", "exclude"},
        std::pair{"run --hosts h0:x true", "--hosts"}}) {
    auto const result = shell.run(std::string("exec $HOLDFAST ") + arguments);
    EXPECT_EQ(result.status, 2) << arguments << result.err;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
  }
  EXPECT_THAT(shell.run("export HOLDFAST_QUORUM=certified; exec $HOLDFAST run --hosts a,b true").err,
              HasSubstr("needs one host"));
}

TEST(Hosts, a_rank_that_was_lost_comes_back_through_the_others_even_the_one_at_whose_address_all_met) {
  TrainingJob job(3,
                  "$HOLDFAST run --agent 'env SEAT={host} HOLDFAST_BIND_ADDRESS=127.0.0.1' --hosts 0:1,1:1,2:1 "
                  "--max-restarts 1 --events events",
                  "tcp", "$SEAT", 4'096);
  ASSERT_TRUE(job.are_running({0, 1, 2})) << job.finish({}).err;
  auto const view = job.member(0).view.load();
  job.strike(0, SIGKILL);
  ASSERT_TRUE(job.go_on({1, 2}, view)) << job.events();
  EXPECT_TRUE(job.go_on({0}, view)) << job.events();
  auto const result = job.finish({0, 1, 2});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("rank 0 is started again"));
  EXPECT_EQ(job.member(0).wrong.load(), 0U);
}

// --- a rig of hosts ------------------------------------------------------------------------------------------------

/// Three hosts, h0 to h2, for as long as it lives. The rig is a program `hosts`, and `rsh-agent` beside it, on PATH or
/// in the folder HOLDFAST_TEST_RIG.
class Rig {
 public:
  static std::string why_not() {
    if (::geteuid() != 0) return "network namespaces need root";
    if (folder().empty()) return "no program 'hosts' on PATH; HOLDFAST_TEST_RIG may name the folder of a rig";
    return {};
  }
  Rig() {
    ::setenv("HOLDFAST_RIG_PREFIX", ("run" + std::to_string(::getpid() % 100000)).c_str(), 1);
    is_up_ = hosts({"up", "3"}) == 0;
  }
  Rig(Rig const&) = delete;
  Rig& operator=(Rig const&) = delete;
  ~Rig() { hosts({"down"}); }

  [[nodiscard]] bool is_up() const { return is_up_; }
  static int hosts(std::vector<std::string> words) {
    words.insert(words.begin(), (folder() / "hosts").string());
    return capture(words, 60s).status;
  }
  static std::string output(std::vector<std::string> words) {
    words.insert(words.begin(), (folder() / "hosts").string());
    return capture(words, 60s).output;
  }
  /// Two ranks on each host, started from h0.
  static std::string launch() {
    return "'" + (folder() / "hosts").string() + "' share \"$PWD\"; exec '" + (folder() / "hosts").string() +
           "' exec h0 $HOLDFAST run --hosts h0:2,h1:2,h2:2 --events events --log-dir logs --agent '" +
           (folder() / "rsh-agent").string() + " {host}'";
  }

 private:
  static std::filesystem::path folder() {
    if (char const* const named = std::getenv("HOLDFAST_TEST_RIG"); named != nullptr && *named != '\0') return named;
    return find_executable("hosts").parent_path();
  }
  bool is_up_ = false;
};

class ThreeHosts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (auto const reason = Rig::why_not(); !reason.empty()) GTEST_SKIP() << "skipped: " << reason;
    rig_ = std::make_unique<Rig>();
    ASSERT_TRUE(rig_->is_up());
  }
  /// The process of this command's agent on a host.
  static pid_t agent_of(TrainingJob& job, int rank) {
    std::ifstream stat("/proc/" + std::to_string(job.member(rank).pid.load()) + "/stat");
    std::string line;
    std::getline(stat, line);
    pid_t parent = 0;
    char state = 0;
    std::istringstream(line.substr(line.rfind(')') + 1)) >> state >> parent;
    return parent;
  }
  static inline std::vector<int> const kAll{0, 1, 2, 3, 4, 5};
  std::unique_ptr<Rig> rig_;
};

TEST_F(ThreeHosts, lose_a_rank_then_an_agent_and_nothing_more) {
  TrainingJob job(6, Rig::launch(), "tcp");
  ASSERT_TRUE(job.are_running(kAll)) << job.finish({}).err;
  auto view = job.member(0).view.load();
  job.strike(3, SIGKILL);
  ASSERT_TRUE(job.go_on({0, 1, 2, 4, 5}, view)) << job.events();
  view = job.member(0).view.load();
  ASSERT_EQ(::kill(agent_of(job, 4), SIGKILL), 0);
  ASSERT_TRUE(job.go_on({0, 1, 2}, view)) << job.events();
  auto const result = job.finish({0, 1, 2});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("rank 3 (pid"), HasSubstr("host h2 is lost (its agent"),
                                HasSubstr("3 of 6 ranks were lost")));
  auto const events = job.events();
  EXPECT_THAT(events,
              AllOf(HasSubstr(R"("event":"host_lost","host":"h2")"), HasSubstr(R"("event":"certificate")"),
                    ContainsRegex(R"("rank":2,"event":"view","view":[0-9]+,"world_size":3,"members":"0,1,2")")));
  for (int const rank : {0, 1, 2}) EXPECT_EQ(job.member(rank).wrong.load(), 0U);
}

TEST_F(ThreeHosts, go_on_without_a_host_that_is_cut_off_which_ends_once_it_learns_of_it) {
  TrainingJob job(6, Rig::launch(), "tcp");
  ASSERT_TRUE(job.are_running(kAll)) << job.finish({}).err;
  auto const view = job.member(0).view.load();
  ASSERT_EQ(Rig::hosts({"cut", "h2"}), 0);
  ASSERT_TRUE(job.go_on({0, 1, 2, 3}, view)) << job.events();
  EXPECT_EQ(job.member(4).view.load(), view);
  ASSERT_EQ(Rig::hosts({"heal", "h2"}), 0);
  EXPECT_TRUE(job.all({4, 5}, [](auto& one) { return one.ended.load() != 0; })) << job.events();
  auto const result = job.finish({0, 1, 2, 3});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("2 of 6 ranks were lost"));
}

TEST_F(ThreeHosts, go_on_without_the_host_of_the_launcher) {
  TrainingJob job(6, Rig::launch(), "tcp");
  ASSERT_TRUE(job.are_running(kAll)) << job.finish({}).err;
  auto const view = job.member(2).view.load();
  ASSERT_EQ(Rig::hosts({"kill", "h0"}), 0);
  std::vector<int> const left{2, 3, 4, 5};
  auto const until = std::chrono::steady_clock::now() + 30s;
  auto const are_on = [&] {
    return std::all_of(left.begin(), left.end(), [&](int rank) { return job.member(rank).view.load() > view; });
  };
  while (!are_on() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(5ms);
  ASSERT_TRUE(are_on());
  auto const agent = agent_of(job, 2);
  job.let_end(left);
  // The agents end with their ranks, and leave nobody behind.
  while (::kill(agent, 0) == 0 && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(20ms);
  for (int const rank : left) EXPECT_EQ(job.member(rank).ended.load(), 1) << "rank " << rank;
  EXPECT_NE(::kill(agent, 0), 0) << "the agent of h1 is still there";
}

}  // namespace
}  // namespace holdfast::launch::test
