#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "../collectives/join/trainer.hpp"

/// Processes that join a running job while others are killed and stopped. The same program is the test and, started as
/// `join_fault member DIRECTORY SEAT BALLAST`, each of the members.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;
using testing::Trainer;

constexpr auto kLimit = 60s;

void write_file(fs::path const& path, std::string const& text) {
  fs::path const temporary = path.string() + ".new";
  std::ofstream(temporary) << text;
  fs::rename(temporary, path);
}

std::string read_file(fs::path const& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// ---------------------------------------------------------------------------------------------------- the member

Outcome<void> train(fs::path const& directory, std::string const& seat, std::size_t ballast) {
  auto group = Group::join(Config::from_environment());
  Communicator communicator(group);
  Trainer trainer(communicator, 20'000, ballast);
  StateSharing sharing(communicator, trainer.registry());
  if (auto joined = sharing.join(trainer.replay(), Deadline::after(kLimit)); !joined) return joined;
  std::ofstream states(directory / ("states." + seat));
  while (true) {
    auto const digest = trainer.registry().digest();
    states << trainer.steps() << ' ' << digest.high << ' ' << digest.low << std::endl;
    write_file(directory / ("progress." + seat),
               std::to_string(trainer.steps()) + " " + std::to_string(group.world_size()));
    std::uint64_t last = 0;
    if (std::ifstream(directory / "stop") >> last && trainer.steps() >= last) return {};
    sharing.boundary();
    if (auto const outcome = trainer.step(); !outcome) return fail(outcome.error());
    std::this_thread::sleep_for(1ms);
  }
}

int run_member(fs::path const& directory, std::string const& seat, std::size_t ballast) {
  std::string end = "done\n";
  try {
    if (auto const ended = train(directory, seat, ballast); !ended)
      end = std::string(name(ended.error().code)) + "\n" + ended.error().message();
  } catch (Error const& error) {
    end = std::string(name(error.errc())) + "\n" + error.what();
  }
  write_file(directory / ("end." + seat), end);
  return 0;
}

// ------------------------------------------------------------------------------------------------------ the test

using Settings = std::map<std::string, std::string>;

/// Members by the order in which they were started. Whatever is left of them ends with this object.
class Job {
 public:
  Job(std::string const& fabric, int members, std::size_t ballast, Settings settings = {})
      : ballast_(ballast), settings_(std::move(settings)) {
    std::string name = fs::temp_directory_path() / "holdfast-join-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    directory_ = name;
    settings_.insert({{"HOLDFAST_FABRIC", fabric},
                      {"HOLDFAST_ON_LOSS", "shrink"},
                      {"HOLDFAST_HEARTBEAT_TIMEOUT_MS", "1000"},
                      {"HOLDFAST_JOB_ID", "join"},
                      {"HOLDFAST_LOG_LEVEL", "info"},
                      {"HOLDFAST_START_TIMEOUT_MS", "60000"},
                      {"HOLDFAST_ARENA_BYTES", "256M"}});
    for (int seat = 0; seat < members; ++seat)
      start({{"HOLDFAST_RANK", std::to_string(seat)},
             {"HOLDFAST_WORLD_SIZE", std::to_string(members)},
             {"HOLDFAST_RENDEZVOUS", meeting()}});
  }
  ~Job() {
    for (pid_t const child : children_) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    if (::testing::Test::HasFailure())
      for (std::size_t seat = 0; seat < children_.size(); ++seat)
        std::printf("--- log of seat %zu\n%s\n", seat, read_file(file("log", seat)).c_str());
    fs::remove_all(directory_);
  }
  Job(Job const&) = delete;
  Job& operator=(Job const&) = delete;

  /// @return its seat
  std::size_t join(Settings const& more = {}) {
    Settings settings{{"HOLDFAST_JOIN", meeting()}};
    settings.insert(more.begin(), more.end());
    return start(settings);
  }
  void send(std::size_t seat, int signal) const { ::kill(children_[seat], signal); }

  struct Progress {
    std::uint64_t steps = 0;
    int world_size = 0;
  };
  [[nodiscard]] Progress progress(std::size_t seat) const {
    Progress progress;
    std::ifstream file(this->file("progress", seat));
    file >> progress.steps >> progress.world_size;
    return progress;
  }
  [[nodiscard]] std::string end(std::size_t seat) const { return read_file(file("end", seat)); }
  [[nodiscard]] std::string events(std::size_t seat) const { return read_file(file("events", seat)); }
  [[nodiscard]] bool has_event(std::size_t seat, std::string const& event) const {
    return events(seat).find("\"" + event + "\"") != std::string::npos;
  }

  /// All of these go on for so many steps, in a view of so many.
  bool go_on(std::vector<std::size_t> const& seats, std::uint64_t steps, int world_size) const {
    std::map<std::size_t, std::uint64_t> from;
    return wait_for([&] {
      bool all = true;
      for (auto const seat : seats) {
        auto const now = progress(seat);
        if (now.world_size != world_size) {
          all = false;
          continue;
        }
        auto const first = from.emplace(seat, now.steps).first->second;
        all = all && now.steps >= first + steps;
      }
      return all;
    });
  }

  template <typename Condition>
  static bool wait_for(Condition const& condition) {
    auto const until = Clock::now() + kLimit;
    while (!condition()) {
      if (Clock::now() > until) return false;
      std::this_thread::sleep_for(2ms);
    }
    return true;
  }

  /// Lets these end, and compares what all members said of their states, the dead included.
  void finish(std::vector<std::size_t> const& seats) const {
    std::uint64_t last = 0;
    for (auto const seat : seats) last = std::max(last, progress(seat).steps);
    write_file(directory_ / "stop", std::to_string(last + 50));
    for (auto const seat : seats) {
      EXPECT_TRUE(wait_for([&] { return !end(seat).empty(); })) << "seat " << seat << " does not end";
      EXPECT_EQ(end(seat), "done\n") << "seat " << seat;
    }
    std::map<std::uint64_t, std::string> truth;
    for (std::size_t seat = 0; seat < children_.size(); ++seat) {
      std::istringstream states(read_file(file("states", seat)));
      std::uint64_t step = 0;
      for (std::string digest; states >> step && std::getline(states, digest);) {
        if (states.eof()) break;  // killed in the middle of its line
        EXPECT_EQ(truth.emplace(step, digest).first->second, digest) << "seat " << seat << " after step " << step;
      }
    }
    EXPECT_GT(truth.size(), 100U);
  }

 private:
  [[nodiscard]] fs::path file(std::string const& what, std::size_t seat) const {
    return directory_ / (what + "." + std::to_string(seat));
  }
  [[nodiscard]] std::string meeting() const { return "file://" + (directory_ / "meeting").string(); }

  std::size_t start(Settings more) {
    auto const seat = children_.size();
    for (auto const& [key, value] : settings_) more.emplace(key, value);
    more["HOLDFAST_EVENT_LOG"] = file("events", seat);
    std::vector<std::string> const command = {fs::read_symlink("/proc/self/exe"), "member", directory_,
                                              std::to_string(seat), std::to_string(ballast_)};
    std::string const log = file("log", seat);
    pid_t const child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (auto const& [key, value] : more) ::setenv(key.c_str(), value.c_str(), 1);
      int const output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(output, STDOUT_FILENO);
      ::dup2(output, STDERR_FILENO);
      std::vector<char*> arguments;
      for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    children_.push_back(child);
    return seat;
  }

  std::size_t ballast_;
  Settings settings_;
  fs::path directory_;
  std::vector<pid_t> children_;
};

class JoinFault : public ::testing::TestWithParam<std::string> {};

/// Long enough to strike in the middle of the transfer.
constexpr std::size_t kBallast = 8 << 20;
Settings const kSlowly = {{"HOLDFAST_JOIN_RATE", "8000000"}};

TEST_P(JoinFault, a_killed_member_is_replaced_by_a_newcomer) {
  Job job(GetParam(), 3, 0);
  ASSERT_TRUE(job.go_on({0, 1, 2}, 20, 3));
  job.send(1, SIGKILL);
  auto const fresh = job.join();
  EXPECT_TRUE(job.go_on({0, 2, fresh}, 100, 3)) << job.end(fresh);
  EXPECT_TRUE(job.has_event(fresh, "entered"));
  EXPECT_TRUE(job.has_event(0, "newcomer_asked") || job.has_event(2, "newcomer_asked"));
  job.finish({0, 2, fresh});
}

TEST_P(JoinFault, the_death_of_a_bystander_does_not_stop_a_join) {
  Job job(GetParam(), 4, kBallast, kSlowly);
  ASSERT_TRUE(job.go_on({0, 1, 2, 3}, 10, 4));
  auto const fresh = job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.has_event(1, "snapshot"); }));
  job.send(3, SIGKILL);
  EXPECT_TRUE(job.go_on({0, 1, 2, fresh}, 100, 4)) << job.end(fresh);
  job.finish({0, 1, 2, fresh});
}

TEST_P(JoinFault, another_donor_takes_over_when_the_first_dies) {
  Job job(GetParam(), 4, kBallast, kSlowly);
  ASSERT_TRUE(job.go_on({0, 1, 2, 3}, 10, 4));
  auto const fresh = job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.has_event(1, "snapshot"); }));
  job.send(1, SIGKILL);
  EXPECT_TRUE(job.go_on({0, 2, 3, fresh}, 100, 4)) << job.end(fresh);
  EXPECT_TRUE(job.has_event(2, "state_given") || job.has_event(3, "state_given") || job.has_event(2, "snapshot") ||
              job.has_event(3, "snapshot"));
  job.finish({0, 2, 3, fresh});
}

TEST_P(JoinFault, a_newcomer_that_dies_on_the_way_costs_the_others_nothing) {
  Job job(GetParam(), 3, kBallast, kSlowly);
  ASSERT_TRUE(job.go_on({0, 1, 2}, 10, 3));
  auto const fresh = job.join();
  ASSERT_TRUE(Job::wait_for([&] { return job.has_event(1, "snapshot"); }));
  job.send(fresh, SIGKILL);
  EXPECT_TRUE(job.go_on({0, 1, 2}, 100, 3));
  job.finish({0, 1, 2});
}

TEST_P(JoinFault, an_evicted_member_learns_of_it_and_comes_back_as_a_newcomer) {
  Job job(GetParam(), 3, 0);
  ASSERT_TRUE(job.go_on({0, 1, 2}, 20, 3));
  job.send(2, SIGSTOP);
  ASSERT_TRUE(job.go_on({0, 1}, 20, 2));
  job.send(2, SIGCONT);
  ASSERT_TRUE(Job::wait_for([&] { return !job.end(2).empty(); }));
  EXPECT_THAT(job.end(2), ::testing::StartsWith("evicted"));
  auto const fresh = job.join();
  EXPECT_TRUE(job.go_on({0, 1, fresh}, 100, 3)) << job.end(fresh);
  job.finish({0, 1, fresh});
}

INSTANTIATE_TEST_SUITE_P(Fabrics, JoinFault, ::testing::Values("shm", "tcp"),
                         [](auto const& test) { return test.param; });

}  // namespace
}  // namespace holdfast

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "member")
    return holdfast::run_member(argv[2], argv[3], std::stoul(argv[4]));
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
