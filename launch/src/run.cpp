#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cxxopts.hpp>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "capture.hpp"
#include "commands.hpp"
#include "local_ranks.hpp"
#include "mpi_launch.hpp"
#include "supervisor.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr long kMostRanks = 4096;

struct RunOptions {
  int ranks = 1;
  std::chrono::duration<double> grace{10};
  std::filesystem::path log_dir;
  bool is_quiet = false;
  bool is_dry = false;
  bool through_mpi = false;
  std::string mpirun;
  std::vector<std::string> variables;
  std::vector<std::string> command;
};

constexpr std::string_view kHelp = R"(Usage: holdfast run -n N [options] [--] PROGRAM [ARGUMENT...]

Starts PROGRAM as N ranks on this host and watches over them. Each rank finds the others by itself: a program that
calls holdfast::Group::join(holdfast::Config::from_environment()) needs nothing else.

  -n, -np, --ranks N       number of ranks (also --nproc-per-node, --num-proc); default 1
      --log-dir DIR        also write DIR/rank-R.out and DIR/rank-R.err (also --output-filename)
      --quiet              show only rank 0's standard output, standard error and exit reasons
      --grace SECONDS      once a rank fails, or a stop signal comes, the others have this long to end by themselves;
                           then SIGTERM, then SIGKILL; default 10
  -x, --env NAME[=VALUE]   set a variable for the ranks; may be repeated
      --mpi                go through mpirun, with the flags that keep survivors alive
      --mpirun PATH        the mpirun for --mpi; default: the one of this build, then the first on PATH
      --dry-run            print the environment and the commands, start nothing
  -h, --help               this text

Output: rank 0's standard output passes through unchanged; other lines are marked with their rank, "[2] ...".
Standard input goes to rank 0, unless it is a terminal.
Signals: Ctrl-C, SIGTERM and SIGHUP reach all ranks, after the grace period all are killed; a second Ctrl-C kills at
once. SIGUSR1 (checkpoint) and SIGUSR2 reach all ranks. No process is left behind.
Set for each rank: HOLDFAST_RANK, HOLDFAST_WORLD_SIZE, HOLDFAST_RENDEZVOUS, HOLDFAST_JOB_ID, and as torchrun does RANK,
LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE; OMP_NUM_THREADS=1 unless it is set.
Exit status: 0 when all ranks ended with 0; else that of the first rank that failed (128 + number for a signal);
75 only when all that failed ended with 75 (checkpointed, please requeue); 127 when PROGRAM cannot be executed.
)";

// Spellings of mpirun, torchrun and horovodrun, by the name of ours.
std::map<std::string_view, std::string_view> const kSpellings{
    {"-np", "--ranks"},
    {"--np", "--ranks"},
    {"--num-proc", "--ranks"},
    {"--nproc-per-node", "--ranks"},
    {"--output-filename", "--log-dir"},
};

bool takes_value(std::string_view option) {
  for (std::string_view const name : {"-n", "--ranks", "--grace", "--log-dir", "-x", "--env", "--mpirun"})
    if (option == name) return true;
  return false;
}

// Splits our own options, in our spelling, from the program and its arguments.
std::vector<std::string> split(int argc, char** argv, std::vector<std::string>& command) {
  std::vector<std::string> own{argv[0]};
  int at = 1;
  for (; at < argc; ++at) {
    std::string_view const word = argv[at];
    if (word == "--") {
      ++at;
      break;
    }
    if (word.empty() || word.front() != '-') break;
    std::size_t const equals = word.find('=');
    std::string name(word.substr(0, equals));
    if (name.substr(0, 2) == "--")
      for (char& letter : name)
        if (letter == '_') letter = '-';
    if (auto const found = kSpellings.find(name); found != kSpellings.end()) name = found->second;
    bool const is_separate = equals == std::string_view::npos && takes_value(name);
    own.push_back(equals == std::string_view::npos ? name : name + std::string(word.substr(equals)));
    if (is_separate && at + 1 < argc) own.emplace_back(argv[++at]);
  }
  command.assign(argv + at, argv + argc);
  return own;
}

std::optional<RunOptions> parse(int argc, char** argv) {
  RunOptions run;
  auto const words = split(argc, argv, run.command);
  std::vector<char const*> pointers;
  for (auto const& word : words) pointers.push_back(word.c_str());

  cxxopts::Options options("holdfast run");
  auto add = options.add_options();
  add("n,ranks", "", cxxopts::value<std::string>()->default_value("1"));
  add("log-dir", "", cxxopts::value<std::string>()->default_value(""));
  add("grace", "", cxxopts::value<std::string>()->default_value("10"));
  add("mpirun", "", cxxopts::value<std::string>()->default_value(""));
  add("x,env", "", cxxopts::value<std::vector<std::string>>());
  add("quiet", "");
  add("mpi", "");
  add("dry-run", "");
  add("h,help", "");
  options.allow_unrecognised_options();
  try {
    auto const given = options.parse(static_cast<int>(pointers.size()), pointers.data());
    if (!given.unmatched().empty()) {
      constexpr std::string_view kValid[] = {"--ranks",  "--nproc-per-node", "--log-dir", "--output-filename",
                                             "--quiet",  "--grace",          "--env",     "--mpi",
                                             "--mpirun", "--dry-run",        "--help"};
      std::string message = "unknown option '" + given.unmatched().front() + "'";
      if (auto const near = nearest(given.unmatched().front(), kValid); !near.empty())
        message += "; did you mean '" + std::string(near) + "'?";
      throw UsageError(message + " Valid: " + join(kValid));
    }
    if (given.count("help") > 0) {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      return std::nullopt;
    }
    run.ranks = static_cast<int>(parse_integer("--ranks", given["ranks"].as<std::string>(), 1, kMostRanks));
    run.grace = std::chrono::duration<double>(parse_seconds("--grace", given["grace"].as<std::string>()));
    run.log_dir = given["log-dir"].as<std::string>();
    run.is_quiet = given.count("quiet") > 0;
    run.is_dry = given.count("dry-run") > 0;
    run.through_mpi = given.count("mpi") > 0;
    run.mpirun = given["mpirun"].as<std::string>();
    if (given.count("env") > 0) run.variables = given["env"].as<std::vector<std::string>>();
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast run --help");
  }
  if (run.command.empty())
    throw UsageError("no program given; usage: holdfast run -n N [options] -- PROGRAM [ARGUMENT...]");
  return run;
}

void create_log_dir(std::filesystem::path const& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error || access(folder.c_str(), W_OK) != 0)
    throw Error(Errc::environment, "--log-dir: cannot write in '" + folder.string() + "'; name another folder");
}

std::map<std::string, std::string> requested_variables(RunOptions const& run) {
  std::map<std::string, std::string> variables;
  for (auto const& text : run.variables) {
    std::size_t const equals = text.find('=');
    if (equals == 0 || text.empty())
      throw UsageError("--env: '" + text + "' is not valid; expected NAME or NAME=VALUE");
    std::string const name = text.substr(0, equals);
    if (equals != std::string::npos) {
      variables[name] = text.substr(equals + 1);
    } else if (char const* const value = std::getenv(name.c_str())) {
      variables[name] = value;
    }
  }
  if (std::getenv("OMP_NUM_THREADS") == nullptr) variables.emplace("OMP_NUM_THREADS", "1");
  return variables;
}

void print_plan(std::vector<std::string> const& assignments, std::vector<std::string> const& command) {
  std::vector<std::string> words = assignments;
  words.insert(words.end(), command.begin(), command.end());
  std::printf("%s\n", shell_line(words).c_str());
}

int run_locally(RunOptions const& run) {
  auto const variables = requested_variables(run);
  if (run.is_dry) {
    auto const job = LocalJob::imagined(run.ranks);
    for (int rank = 0; rank < run.ranks; ++rank) print_plan(job.assignments(rank, variables), run.command);
    return 0;
  }
  if (!run.log_dir.empty()) create_log_dir(run.log_dir);
  LocalJob const job(run.ranks);
  std::vector<ProcessPlan> plans;
  for (int rank = 0; rank < run.ranks; ++rank) {
    auto plan = job.plan(rank, run.command, variables);
    plan.passes_output_through = rank == 0;
    plan.is_muted = run.is_quiet && rank != 0;
    plan.reads_input = rank == 0;
    if (!run.log_dir.empty()) {
      auto const stem = "rank-" + std::to_string(rank);
      plan.output_log = run.log_dir / (stem + ".out");
      plan.error_log = run.log_dir / (stem + ".err");
    }
    plans.push_back(std::move(plan));
  }
  return supervise(plans, {.speaker = "holdfast run", .grace = run.grace, .time_limit = {}});
}

int run_through_mpi(RunOptions const& run) {
  auto const mpirun = find_mpirun(run.mpirun);
  auto const variables = requested_variables(run);
  std::vector<std::string> command{mpirun.path};
  auto const append = [&](std::vector<std::string> const& words) {
    command.insert(command.end(), words.begin(), words.end());
  };
  append(survivor_flags(mpirun));
  append(placement_flags(mpirun, run.ranks));
  append({"-n", std::to_string(run.ranks)});
  if (mpirun.major > 0)
    for (auto const& [name, value] : variables) append({"-x", name});
  if (!run.log_dir.empty() && mpirun.major >= 5) append({"--output", "dir=" + run.log_dir.string()});
  if (!run.log_dir.empty() && mpirun.major == 4) append({"--output-filename", run.log_dir.string()});
  append(run.command);

  std::vector<std::string> assignments;
  for (auto const& [name, value] : variables) assignments.push_back(name + "=" + value);
  if (run.is_dry) {
    print_plan(assignments, command);
    return 0;
  }
  if (!run.log_dir.empty()) create_log_dir(run.log_dir);
  if (find_executable(run.command.front()).empty()) {
    std::fprintf(stderr, "holdfast run: cannot execute '%s': no such program\n", run.command.front().c_str());
    return kNotExecutableStatus;
  }
  ProcessPlan plan;
  plan.label = "mpirun";
  plan.command = command;
  // mpirun tells the ranks who they are; what an outer `holdfast run` said would contradict it.
  plan.environment = environment_with(variables, {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS"});
  plan.passes_output_through = true;
  plan.prefixes_errors = false;
  plan.reads_input = true;
  plan.orphan_signal = SIGTERM;  // on which mpirun ends its ranks
  return supervise({plan}, {.speaker = "holdfast run", .grace = run.grace, .time_limit = {}});
}

}  // namespace

int run_command(int argc, char** argv) {
  auto const run = parse(argc, argv);
  if (!run) return 0;
  return run->through_mpi ? run_through_mpi(*run) : run_locally(*run);
}

}  // namespace holdfast::launch
