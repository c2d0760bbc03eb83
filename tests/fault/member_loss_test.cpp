#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/log.hpp>

/// What the others see of a member that is killed or stopped in the middle of rounds. The same program is the test and,
/// started as `member_loss member FABRIC DIRECTORY`, each of the members that the test lets run.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr auto kEndsWithin = 5s;
constexpr auto kStartsWithin = 60s;

// ---------------------------------------------------------------------------------------------------- the member

std::uint64_t hash_of(MutableBuffer buffer) {
  return std::hash<std::string_view>()({reinterpret_cast<char const*>(buffer.data()), buffer.bytes()});
}

struct Committed {
  std::uint64_t round = 0;
  std::uint64_t hash = 0;
};

void write_file(fs::path const& path, std::string const& text) {
  fs::path const temporary = path.string() + ".new";
  std::ofstream(temporary) << text;
  fs::rename(temporary, path);
}

int run_member(std::string const& fabric, fs::path const& directory) {
  auto config = Config::from_environment();
  config.on_loss = "end";
  config.heartbeat_timeout = 2s;
  auto const group = Group::join(config);
  CommunicatorOptions options;
  options.fabric = fabric;
  Communicator communicator(group, options);
  auto const self = std::to_string(group.rank());

  std::vector<Bucket> buckets;
  for (std::size_t const elements : {300'001UL, 5'000UL})
    buckets.push_back(communicator.allocate(elements, DType::float32));
  std::vector<Committed> last(2);
  while (true) {
    auto round = communicator.begin();
    for (auto& bucket : buckets) {
      auto* const data = reinterpret_cast<float*>(bucket.contribution().data());
      for (std::size_t index = 0; index < bucket.elements(); ++index)
        data[index] =
            static_cast<float>((index * 7 + last[0].round * 13) % 1009) / 3 + static_cast<float>(group.rank());
      round.aggregate(bucket);
    }
    auto const outcome = round.commit(Deadline::after(30s));
    if (!outcome) {
      std::ostringstream text;
      text << name(outcome.error().code);
      for (auto const member : outcome.error().failed_members) text << ' ' << *group.view().rank_of(member);
      text << '\n';
      for (auto const& committed : last) text << committed.round << ' ' << committed.hash << '\n';
      text << outcome.error().message() << '\n';
      write_file(directory / ("result." + self), text.str());
      return 0;
    }
    last[1] = last[0];
    last[0] = {outcome->round.number, hash_of(buckets[0].result()) * 31 + hash_of(buckets[1].result())};
    write_file(directory / ("progress." + self), std::to_string(::getpid()) + " " + std::to_string(last[0].round));
  }
}

// ------------------------------------------------------------------------------------------------------ the test

struct Result {
  std::string code;
  std::vector<int> failed;
  std::map<std::uint64_t, std::uint64_t> hashes;
  std::uint64_t last_round = 0;
  std::string message;
};

std::optional<Result> read_result(fs::path const& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  Result result;
  std::istringstream first(line);
  first >> result.code;
  for (int rank = 0; first >> rank;) result.failed.push_back(rank);
  for (int entry = 0; entry < 2; ++entry) {
    Committed committed;
    file >> committed.round >> committed.hash;
    result.hashes[committed.round] = committed.hash;
    result.last_round = std::max(result.last_round, committed.round);
  }
  std::getline(file >> std::ws, result.message);
  return result;
}

/// Members that run until one of them is struck. Whatever is left of them ends with this object.
class Job {
 public:
  Job(std::string const& fabric, int ranks) : ranks_(ranks) {
    std::string name = fs::temp_directory_path() / "holdfast-fault-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    directory_ = name;
    fs::create_directory(directory_ / "meeting");
    std::string const program = fs::read_symlink("/proc/self/exe");
    std::vector<std::string> const member = {program, "member", fabric, directory_};
    if (fabric == "mpi") {
      std::vector<std::string> command;
      std::istringstream words(HOLDFAST_TEST_MPIRUN);
      for (std::string word; words >> word;) command.push_back(word);
      command.insert(command.end(), {"-n", std::to_string(ranks)});
      command.insert(command.end(), member.begin(), member.end());
      start(command, {});
      return;
    }
    for (int rank = 0; rank < ranks; ++rank)
      start(member, {{"HOLDFAST_RANK", std::to_string(rank)},
                     {"HOLDFAST_WORLD_SIZE", std::to_string(ranks)},
                     {"HOLDFAST_RENDEZVOUS", "file://" + (directory_ / "meeting").string()}});
  }
  ~Job() {
    for (int rank = 0; rank < ranks_; ++rank)
      if (auto const progress = progress_of(rank)) ::kill(progress->pid, SIGKILL);
    auto const until = Clock::now() + 5s;
    for (pid_t const child : children_)
      while (::waitpid(child, nullptr, WNOHANG) == 0) {
        if (Clock::now() > until) ::kill(child, SIGKILL);
        std::this_thread::sleep_for(2ms);
      }
    fs::remove_all(directory_);
  }
  Job(Job const&) = delete;
  Job& operator=(Job const&) = delete;

  struct Progress {
    pid_t pid = 0;
    std::uint64_t round = 0;
  };
  [[nodiscard]] std::optional<Progress> progress_of(int rank) const {
    std::ifstream file(directory_ / ("progress." + std::to_string(rank)));
    Progress progress;
    if (file >> progress.pid >> progress.round) return progress;
    return std::nullopt;
  }
  [[nodiscard]] bool all_have_committed(std::uint64_t round) const {
    for (int rank = 0; rank < ranks_; ++rank)
      if (auto const progress = progress_of(rank); !progress || progress->round < round) return false;
    return true;
  }
  [[nodiscard]] std::optional<Result> result_of(int rank) const {
    return read_result(directory_ / ("result." + std::to_string(rank)));
  }
  /// Whether the process of `rank` has ended; a child of mpirun counts as such once it is no more than a zombie.
  [[nodiscard]] bool has_ended(int rank) const {
    for (pid_t const child : children_) ::waitpid(child, nullptr, WNOHANG);
    std::ifstream file("/proc/" + std::to_string(progress_of(rank)->pid) + "/stat");
    std::string line;
    if (!std::getline(file, line)) return true;
    auto const state = line.rfind(')') + 2;
    return line[state] == 'Z' || line[state] == 'X';
  }

 private:
  void start(std::vector<std::string> const& command, std::map<std::string, std::string> const& variables) {
    std::string const log = directory_ / ("log." + std::to_string(children_.size()));
    pid_t const child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (auto const& [key, value] : variables) ::setenv(key.c_str(), value.c_str(), 1);
      int const file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(file, STDOUT_FILENO);
      ::dup2(file, STDERR_FILENO);
      std::vector<char*> arguments;
      for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    children_.push_back(child);
  }

  int ranks_;
  fs::path directory_;
  std::vector<pid_t> children_;
};

template <typename Condition>
bool happens_within(Clock::duration limit, Condition const& condition) {
  auto const until = Clock::now() + limit;
  while (!condition()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

void strike(std::string const& fabric, int ranks, int victim, int signal, std::uint64_t at_round) {
  SCOPED_TRACE(fabric + ", " + std::to_string(ranks) + " ranks, signal " + std::to_string(signal) + " to rank " +
               std::to_string(victim) + " after round " + std::to_string(at_round));
  Job job(fabric, ranks);
  ASSERT_TRUE(happens_within(kStartsWithin, [&] { return job.all_have_committed(at_round); }));
  pid_t const pid = job.progress_of(victim)->pid;
  auto const struck = Clock::now();
  ASSERT_EQ(::kill(pid, signal), 0);
  auto const all_ended = [&] {
    for (int rank = 0; rank < ranks; ++rank)
      if (rank != victim && !job.has_ended(rank)) return false;
    return true;
  };
  EXPECT_TRUE(happens_within(kEndsWithin, all_ended)) << "a survivor did not end in time";
  auto const took = Clock::now() - struck;
  if (signal == SIGSTOP) {
    EXPECT_GT(took, 500ms) << "silence this short proves nothing";
  }

  std::vector<Result> results;
  for (int rank = 0; rank < ranks; ++rank) {
    if (rank == victim) continue;
    auto const result = job.result_of(rank);
    ASSERT_TRUE(result) << "rank " << rank << " left no result";
    EXPECT_EQ(result->code, "member_lost") << "rank " << rank << ": " << result->message;
    EXPECT_EQ(result->failed, std::vector<int>{victim}) << "rank " << rank << ": " << result->message;
    EXPECT_GE(result->last_round, at_round);
    results.push_back(*result);
  }
  // Members differ by at most the one round whose READYs were on their way; what two have committed is the same.
  auto const [least, most] = std::minmax_element(
      results.begin(), results.end(), [](auto const& a, auto const& b) { return a.last_round < b.last_round; });
  EXPECT_LE(most->last_round - least->last_round, 1U);
  auto const common = least->last_round;
  for (auto const& result : results) {
    ASSERT_TRUE(result.hashes.contains(common));
    EXPECT_EQ(result.hashes.at(common), least->hashes.at(common)) << "in round " << common;
  }
}

class MemberLoss : public ::testing::TestWithParam<std::string> {};

TEST_P(MemberLoss, a_killed_member_is_named_by_every_survivor) {
  for (int trial = 0; trial < 4; ++trial) {
    strike(GetParam(), 2 + trial % 3, trial % 2, SIGKILL, 5 + 7 * static_cast<std::uint64_t>(trial));
    if (HasFatalFailure()) return;
  }
}

TEST_P(MemberLoss, a_stopped_member_is_named_by_every_survivor) {
  for (int trial = 0; trial < 2; ++trial) {
    strike(GetParam(), 3, trial == 0 ? 2 : 0, SIGSTOP, 5 + 9 * static_cast<std::uint64_t>(trial));
    if (HasFatalFailure()) return;
  }
}

std::vector<std::string> fabrics_here() {
  std::vector<std::string> all = {"shm"};
  if (std::string_view(HOLDFAST_TEST_MPIRUN) != "") all.emplace_back("mpi");
  return all;
}

INSTANTIATE_TEST_SUITE_P(Fault, MemberLoss, ::testing::ValuesIn(fabrics_here()),
                         [](auto const& test) { return test.param; });

}  // namespace
}  // namespace holdfast

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "member") return holdfast::run_member(argv[2], argv[3]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
