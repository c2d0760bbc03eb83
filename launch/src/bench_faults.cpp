#include "bench_faults.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <cxxopts.hpp>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/supervisor_port.hpp>

#include "bench_plan.hpp"
#include "fault_board.hpp"
#include "local_ranks.hpp"
#include "mpi_launch.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kHelp = R"(Usage: holdfast bench faults [options]

Lets members exchange in a loop, strikes one of them at a random instant, and takes the time from there to the last
survivor's first committed round of the view without it. Each try is a job of its own.
Members run with on_loss = shrink and a heartbeat timeout of 500 ms.

      --fabric F           shm, tcp or mpi (by mpirun, with the flags that keep survivors alive); default shm
      --ranks N            members; default 4 (also -n)
      --bytes B            of one exchange; K, M, G are powers of 1024; default 4M
      --fault NAMES        kill (SIGKILL of a member that is not the coordinator), kill-coordinator, stop (SIGSTOP),
                           join (one more member comes; recovery is then the longest time between two rounds of the
                           others, less the steady round); several with commas; default kill,kill-coordinator,stop
      --state B            registered state that a joining member fetches; default 192M
      --join-rate R        bytes per second at which it is sent; default 200000000; 0: as fast as it goes
      --quorum Q           majority or certified; default majority
      --tries T            default 10
      --seed S             of the instants and victims; default random, printed
      --json               one JSON object per fault instead of the table
  -h, --help               this text

JSON keys: fault, fabric, ranks, bytes, quorum, tries, recovered, recovery_ms_median, recovery_ms_max, steady_ms (median
time of a round before the fault), wrong (rounds with another result than the mean of their contributors), seed.
)";

constexpr std::string_view kFaults[] = {"kill", "kill-coordinator", "stop", "join"};
constexpr auto kStartLimit = 60s;
constexpr auto kRecoveryLimit = 20s;
constexpr auto kEndLimit = 20s;
constexpr auto kMpirunLimit = 5s;
constexpr auto kJoinLimit = 60s;
constexpr std::uint64_t kRoundsBefore = 20;
constexpr std::uint64_t kRoundsAfter = 5;

struct Options {
  FaultPlan plan;
  int ranks = 4;
  std::vector<std::string> faults;
  std::string quorum = "majority";
  std::uint64_t state_bytes = 0;
  std::uint64_t join_rate = 0;
  int tries = 10;
  std::uint64_t seed = 0;
  bool as_json = false;
};

struct Try {
  std::optional<double> recovery_ms;
  double steady_ms = 0;
  std::uint64_t wrong = 0;
};

/// One job, from its start to its end.
class Job {
 public:
  Job(Options const& options, std::uint64_t state_bytes)
      : options_(options),
        state_bytes_(state_bytes),
        folder_(),
        board_file_(folder_.path() / "board"),
        board_(board_file_, true),
        job_(options.ranks) {
    // Without majorities somebody has to end the silent and to say that they ended, as `holdfast run` does.
    if (options.quorum == "certified") supervisor_.emplace(folder_.path() / "supervisor", true);
    if (options.plan.fabric == "mpi") {
      start_by_mpirun();
    } else {
      for (int rank = 0; rank < options.ranks; ++rank) start(rank);
    }
  }
  Job(Job const&) = delete;
  Job& operator=(Job const&) = delete;
  ~Job() {
    // Ranks are mpirun's children; where it does not end them with itself, they are ended here first.
    if (options_.plan.fabric == "mpi")
      for (int rank = 0; rank < options_.ranks; ++rank)
        if (member(rank).ended.load() == 0) strike(rank, SIGKILL);
    for (auto const pid : pids_) end(pid);
  }

  [[nodiscard]] FaultBoard& board() { return *board_; }
  [[nodiscard]] FaultBoard::Member& member(int rank) { return board_->members[static_cast<std::size_t>(rank)]; }
  /// One more member, the seat after the others.
  void join() { start(options_.ranks, {{"HOLDFAST_JOIN", job_.rendezvous()}}); }
  void strike(int rank, int signal) {
    auto const pid = static_cast<pid_t>(member(rank).pid.load());
    if (pid > 1) ::kill(pid, signal);
  }

  /// Whether `is_so` of each of these members within the limit, and while they live.
  template <typename Condition>
  bool wait_for(std::vector<int> const& ranks, std::chrono::nanoseconds limit, Condition const& is_so) {
    auto const until = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < until) {
      bool const all = std::all_of(ranks.begin(), ranks.end(), [&](int rank) { return is_so(member(rank)); });
      if (all) return true;
      for (int const rank : ranks)
        if (member(rank).ended.load() > 1) return false;
      if (supervisor_) static_cast<void>(supervisor_->serve());
      std::this_thread::sleep_for(200us);
    }
    return false;
  }

  /// Lets the members end after a round that none has reached.
  bool finish(std::vector<int> const& ranks) {
    std::uint64_t last = 0;
    for (int const rank : ranks) last = std::max(last, member(rank).last_round.load());
    board_->stop_after.store(last + 4);
    return wait_for(ranks, kEndLimit, [](auto const& one) { return one.ended.load() == 1; });
  }

 private:
  [[nodiscard]] std::vector<std::string> command(std::string const& seat) const {
    std::error_code error;
    auto const self = std::filesystem::read_symlink("/proc/self/exe", error).string();
    return {self,
            "bench-fault-member",
            board_file_.string(),
            seat,
            options_.plan.fabric,
            std::to_string(options_.plan.bytes),
            std::to_string(state_bytes_)};
  }
  [[nodiscard]] std::map<std::string, std::string> settings() const {
    char const* const log_level = std::getenv("HOLDFAST_LOG_LEVEL");
    return {{"HOLDFAST_SUPERVISOR", supervisor_ ? supervisor_->address() : ""},
            {"HOLDFAST_ON_LOSS", "shrink"},
            {"HOLDFAST_HEARTBEAT_TIMEOUT_MS", "500"},
            {"HOLDFAST_QUORUM", options_.quorum},
            {"HOLDFAST_JOIN_RATE", std::to_string(options_.join_rate)},
            {"HOLDFAST_LOG_LEVEL", log_level != nullptr ? log_level : "off"},
            {"OMP_NUM_THREADS", "1"}};
  }

  void start(int rank, std::map<std::string, std::string> more = {}) {
    more.merge(settings());
    auto const plan = job_.plan(rank, command(std::to_string(rank)), std::move(more));
    launch(plan.command, plan.environment, false);
  }

  void start_by_mpirun() {
    auto const mpirun = find_mpirun();
    std::vector<std::string> words{mpirun.path};
    auto const append = [&](std::vector<std::string> const& more) {
      words.insert(words.end(), more.begin(), more.end());
    };
    append(survivor_flags(mpirun));
    append(placement_flags(mpirun, options_.ranks));
    // A killed job leaves the segments of the transport behind: here they go with the folder.
    if (mpirun.major >= 5) append({"--mca", "btl_sm_backing_directory", folder_.path().string()});
    append({"-n", std::to_string(options_.ranks)});
    for (auto const& [name, value] : settings()) append({"-x", name});
    append(command(std::string(kSeatOfMpi)));
    // mpirun reports the rank that was killed on purpose.
    launch(words, environment_with(settings(), {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS"}), true);
  }

  void launch(std::vector<std::string> const& command, std::vector<std::string> const& variables, bool is_mute) {
    std::vector<char*> arguments;
    std::vector<char*> environment;
    for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    for (auto const& word : variables) environment.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    environment.push_back(nullptr);
    auto const pid = ::fork();
    if (pid < 0) throw Error(Errc::environment, "cannot start a process (limit of processes? see `ulimit -u`)");
    if (pid == 0) {
      if (int const nowhere = is_mute ? ::open("/dev/null", O_WRONLY) : -1; nowhere >= 0) {
        ::dup2(nowhere, STDOUT_FILENO);
        ::dup2(nowhere, STDERR_FILENO);
      }
      ::execve(arguments.front(), arguments.data(), environment.data());
      ::_exit(127);
    }
    pids_.push_back(pid);
  }

  /// mpirun removes its files if it may end by itself, which it does once its ranks have.
  void end(pid_t pid) const {
    auto const until = std::chrono::steady_clock::now() + (options_.plan.fabric == "mpi" ? kMpirunLimit : 0s);
    while (::waitpid(pid, nullptr, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() >= until) ::kill(pid, SIGKILL);
      std::this_thread::sleep_for(1ms);
    }
  }

  Options const& options_;
  std::uint64_t state_bytes_;
  TemporaryFolder folder_;
  std::filesystem::path board_file_;
  MappedBoard board_;
  LocalJob job_;
  std::optional<SupervisorPort> supervisor_;
  std::vector<pid_t> pids_;
};

/// A newcomer in a running loop: how long the others wait for their next round because of it.
void try_join(Job& job, std::vector<int> everyone, Try& result) {
  for (int const rank : everyone) job.member(rank).longest_gap_ns.store(0);
  auto const old = everyone;
  int const newcomer = static_cast<int>(everyone.size());
  job.join();
  everyone.push_back(newcomer);
  bool const entered =
      job.wait_for(everyone, kJoinLimit, [&](auto const& one) { return one.commits.load() >= kRoundsAfter; }) &&
      job.wait_for(old, kJoinLimit,
                   [&](auto const& one) { return one.view.load() == job.member(newcomer).view.load(); });
  std::int64_t longest = 0;
  for (int const rank : old) longest = std::max(longest, job.member(rank).longest_gap_ns.load());
  if (entered && job.finish(everyone))
    result.recovery_ms = std::max(0.0, static_cast<double>(longest) / 1e6 - result.steady_ms);
  for (int const rank : everyone) result.wrong += job.member(rank).wrong.load();
}

Try try_once(Options const& options, std::string const& fault, std::mt19937_64& random) {
  Job job(options, fault == "join" ? options.state_bytes : 0);
  std::vector<int> everyone;
  for (int rank = 0; rank < options.ranks; ++rank) everyone.push_back(rank);
  bool const runs =
      job.wait_for(everyone, kStartLimit, [](auto const& one) { return one.commits.load() >= kRoundsBefore; });
  if (!runs) throw Error(Errc::start_failed, "the members of a try did not start; HOLDFAST_LOG_LEVEL=info shows why");

  Try result;
  std::vector<double> steady;
  for (int const rank : everyone)
    for (auto const& ns : job.member(rank).round_ns) steady.push_back(static_cast<double>(ns.load()) / 1e6);
  result.steady_ms = median(steady);

  if (fault == "join") {
    try_join(job, everyone, result);
    return result;
  }
  int const victim = fault == "kill-coordinator" ? 0 : std::uniform_int_distribution<int>(1, options.ranks - 1)(random);
  std::vector<int> survivors;
  for (int const rank : everyone)
    if (rank != victim) survivors.push_back(rank);
  auto const view = job.member(survivors.front()).view.load();
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(
      std::uniform_real_distribution<double>(0, 3 * result.steady_ms)(random)));
  auto const struck = monotonic_ns();
  job.strike(victim, fault == "stop" ? SIGSTOP : SIGKILL);

  bool const recovered =
      job.wait_for(survivors, kRecoveryLimit, [&](auto const& one) { return one.view.load() > view; });
  if (recovered) {
    double latest = 0;
    for (int const rank : survivors) {
      auto const& one = job.member(rank);
      auto const at = one.first_commit[one.view.load() % FaultBoard::kMostViews].load();
      latest = std::max(latest, static_cast<double>(at - struck) / 1e6);
    }
    if (job.finish(survivors)) result.recovery_ms = latest;
  }
  for (int const rank : survivors) result.wrong += job.member(rank).wrong.load();
  return result;
}

Options parse(int argc, char** argv, bool& helped) {
  cxxopts::Options description("holdfast bench faults");
  auto add = description.add_options();
  auto const text = [](char const* fallback) { return cxxopts::value<std::string>()->default_value(fallback); };
  add("fabric", "", text("shm"));
  add("n,ranks", "", text("4"));
  add("bytes", "", text("4M"));
  add("fault", "", text("kill,kill-coordinator,stop"));
  add("quorum", "", text("majority"));
  add("tries", "", text("10"));
  add("state", "", text("192M"));
  add("join-rate", "", text("200000000"));
  add("seed", "", text(""));
  add("json", "");
  add("h,help", "");
  description.allow_unrecognised_options();
  Options options;
  try {
    auto const given = description.parse(argc, argv);
    if (given.count("help") > 0) {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      helped = true;
      return options;
    }
    constexpr std::string_view kValid[] = {"--fabric", "--ranks",     "--bytes", "--fault", "--quorum", "--tries",
                                           "--state",  "--join-rate", "--seed",  "--json",  "--help"};
    if (!given.unmatched().empty())
      throw UsageError("unknown option '" + given.unmatched().front() + "' Valid: " + join(kValid));
    auto const word = [&](char const* option) { return given[option].as<std::string>(); };
    constexpr std::string_view kFabrics[] = {"shm", "tcp", "mpi"};
    constexpr std::string_view kQuorums[] = {"majority", "certified"};
    options.plan.fabric = require_one_of("--fabric", word("fabric"), kFabrics);
    options.ranks =
        static_cast<int>(parse_integer("--ranks", word("ranks"), 2, static_cast<long>(FaultBoard::kMostMembers)));
    auto const sizes = parse_byte_sizes("--bytes", word("bytes"));
    if (sizes.size() != 1 || sizes.front() < 64) throw UsageError("--bytes: one size of at least 64 bytes");
    options.plan.bytes = sizes.front();
    std::string const faults = word("fault");
    for (std::size_t begin = 0; begin <= faults.size();) {
      auto const end = std::min(faults.find(',', begin), faults.size());
      options.faults.emplace_back(require_one_of("--fault", faults.substr(begin, end - begin), kFaults));
      begin = end + 1;
    }
    if (options.plan.fabric == "mpi" &&
        std::find(options.faults.begin(), options.faults.end(), "join") != options.faults.end())
      throw UsageError("--fault join: nobody can join the mpi fabric; use --fabric shm or tcp");
    options.quorum = require_one_of("--quorum", word("quorum"), kQuorums);
    options.tries = static_cast<int>(parse_integer("--tries", word("tries"), 1, 10'000));
    auto const state = parse_byte_sizes("--state", word("state"));
    if (state.size() != 1 || state.front() < sizeof(float)) throw UsageError("--state: one size of at least 4 bytes");
    options.state_bytes = state.front();
    options.join_rate = static_cast<std::uint64_t>(parse_integer("--join-rate", word("join-rate"), 0, 1L << 40));
    options.seed = word("seed").empty()
                       ? std::random_device{}()
                       : static_cast<std::uint64_t>(parse_integer("--seed", word("seed"), 0, 1L << 62));
    options.as_json = given.count("json") > 0;
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast bench faults --help");
  }
  return options;
}

}  // namespace

int bench_faults_command(int argc, char** argv) {
  bool helped = false;
  auto const options = parse(argc, argv, helped);
  if (helped) return 0;
  std::mt19937_64 random(options.seed);
  bool all_well = true;
  if (!options.as_json)
    std::printf("# %s, %d members, %llu bytes, %s quorum, seed %llu\n%18s %6s %10s %12s %12s %10s %6s\n",
                options.plan.fabric.c_str(), options.ranks, static_cast<unsigned long long>(options.plan.bytes),
                options.quorum.c_str(), static_cast<unsigned long long>(options.seed), "fault", "tries", "recovered",
                "median ms", "max ms", "steady ms", "wrong");
  for (auto const& fault : options.faults) {
    std::vector<double> recoveries;
    std::vector<double> steady;
    std::uint64_t wrong = 0;
    for (int number = 0; number < options.tries; ++number) {
      auto const one = try_once(options, fault, random);
      if (one.recovery_ms) recoveries.push_back(*one.recovery_ms);
      steady.push_back(one.steady_ms);
      wrong += one.wrong;
    }
    bool const is_well = static_cast<int>(recoveries.size()) == options.tries && wrong == 0;
    all_well = all_well && is_well;
    auto const middle = recoveries.empty() ? 0 : median(recoveries);
    auto const longest = recoveries.empty() ? 0 : *std::max_element(recoveries.begin(), recoveries.end());
    if (options.as_json) {
      nlohmann::ordered_json line{{"fault", fault},
                                  {"fabric", options.plan.fabric},
                                  {"ranks", options.ranks},
                                  {"bytes", options.plan.bytes},
                                  {"quorum", options.quorum},
                                  {"tries", options.tries},
                                  {"recovered", recoveries.size()},
                                  {"recovery_ms_median", middle},
                                  {"recovery_ms_max", longest},
                                  {"steady_ms", median(steady)},
                                  {"wrong", wrong},
                                  {"seed", options.seed}};
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf("%18s %6d %10zu %12.1f %12.1f %10.2f %6llu\n", fault.c_str(), options.tries, recoveries.size(),
                  middle, longest, median(steady), static_cast<unsigned long long>(wrong));
    }
    std::fflush(stdout);
  }
  return all_well ? 0 : 1;
}

}  // namespace holdfast::launch
