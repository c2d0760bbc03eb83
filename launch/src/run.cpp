#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cxxopts.hpp>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "capture.hpp"
#include "commands.hpp"
#include "host_list.hpp"
#include "hosts_launch.hpp"
#include "local_ranks.hpp"
#include "mpi_launch.hpp"
#include "supervisor.hpp"
#include "supervisor_socket.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr long kMostRanks = 4096;

struct RunOptions {
  int ranks = 1;
  JobPolicy::Options policy;
  std::filesystem::path events;
  std::vector<HostSlots> hosts;
  std::string agent;
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
      --min M              end the job when fewer than M ranks are left; with it, ranks are started again
      --max N              start N ranks; the same as --ranks N (both at once: --nnodes M:N)
      --max-restarts R     start a rank that was lost or failed again, as a newcomer to the running group, at most R
                           times, after 1 s, 2 s, 4 s ...; default 3 with --min or --max, else 0
      --hosts H:N,H:N,...  run on these hosts, N ranks each, without MPI: an agent on each starts and watches its ranks
      --hostfile FILE      the same from a file, a host a line: "h0 slots=2" or "h0:2"
      --agent COMMAND      what starts the agent on a host, {host} being its name; default
                           "ssh -o BatchMode=yes -o ConnectTimeout=15 {host}"
      --events FILE        append what happens to FILE: JSON lines of all ranks and of this command in one
  -x, --env NAME[=VALUE]   set a variable for the ranks; may be repeated
      --mpi                go through mpirun, with the flags that keep survivors alive
      --mpirun PATH        the mpirun for --mpi; default: the one of this build, then the first on PATH
      --dry-run            print the environment and the commands, start nothing
  -h, --help               this text

Losses: a rank that is killed, or that hangs and is fenced by this command on the others' word, is left behind; the
others go on, down to the last one (HOLDFAST_ON_LOSS=end: all end).
Hosts: the environment and the working folder are passed on (HOME, TMPDIR and the like excepted); this command must be
there under the same path. A lost agent or host is the loss of its ranks. When this command dies, the agents go on, their
output goes to --log-dir alone, and the job is over when its ranks have ended. Unless a job secret is set, one is made.
Output: rank 0's standard output passes through unchanged; other lines are marked with their rank, "[2] ...".
Standard input goes to rank 0, unless it is a terminal.
Signals: Ctrl-C, SIGTERM and SIGHUP reach all ranks, after the grace period all are killed; a second Ctrl-C kills at
once. SIGUSR1 (checkpoint) and SIGUSR2 reach all ranks. No process is left behind.
Set for each rank: HOLDFAST_RANK, HOLDFAST_WORLD_SIZE, HOLDFAST_RENDEZVOUS, HOLDFAST_JOB_ID, and as torchrun does RANK,
LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE; OMP_NUM_THREADS=1 unless it is set.
Exit status: 0 when all ranks that were not lost ended with 0; else that of the first rank that failed (128 + number for
a signal); 75 only when all that failed ended with 75 (checkpointed, please requeue); 127 when PROGRAM cannot be
executed.
)";

// Spellings of mpirun, torchrun and horovodrun, by the name of ours.
std::map<std::string_view, std::string_view> const kSpellings{
    {"-np", "--ranks"},
    {"--np", "--ranks"},
    {"--num-proc", "--ranks"},
    {"--nproc-per-node", "--ranks"},
    {"--output-filename", "--log-dir"},
    {"--min-np", "--min"},
    {"--max-np", "--max"},
};

bool takes_value(std::string_view option) {
  for (std::string_view const name :
       {"-n", "--ranks", "--grace", "--log-dir", "-x", "--env", "--mpirun", "--min", "--max", "--nnodes",
        "--max-restarts", "--events", "--hosts", "--hostfile", "--agent"})
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

using Given = std::function<std::optional<std::string>(char const* option)>;

/// Where to run.
void set_hosts(RunOptions& run, Given const& given) {
  auto const hosts = given("hosts");
  auto const file = given("hostfile");
  if (hosts && file) throw UsageError("--hosts and --hostfile are both given; keep one of them");
  if (hosts) run.hosts = parse_hosts("--hosts", *hosts);
  if (file) run.hosts = read_hostfile(*file);
  run.agent = given("agent").value_or("ssh -o BatchMode=yes -o ConnectTimeout=15 {host}");
}

/// How many ranks to start, with how few to go on, and how often to replace one.
void set_sizes(RunOptions& run, Given const& given) {
  auto const number = [&](char const* option, char const* name, long lowest) -> std::optional<int> {
    auto const text = given(option);
    if (!text) return std::nullopt;
    return static_cast<int>(parse_integer(name, *text, lowest, kMostRanks));
  };
  auto ranks = number("ranks", "--ranks", 1);
  if (!run.hosts.empty()) {
    int const slots = std::accumulate(run.hosts.begin(), run.hosts.end(), 0,
                                      [](int sum, HostSlots const& host) { return sum + host.ranks; });
    if (ranks && *ranks != slots)
      throw UsageError("--ranks: " + std::to_string(*ranks) + " is not what the hosts add up to, " +
                       std::to_string(slots) + "; leave it out");
    ranks = slots;
  }
  auto least = number("min", "--min", 1);
  auto most = number("max", "--max", 1);
  if (auto const nodes = given("nnodes")) {
    auto const colon = std::min(nodes->find(':'), nodes->size());
    least = static_cast<int>(parse_integer("--nnodes", nodes->substr(0, colon), 1, kMostRanks));
    most = colon == nodes->size()
               ? least
               : static_cast<int>(parse_integer("--nnodes", nodes->substr(colon + 1), 1, kMostRanks));
    // torchrun's nodes are hosts; on one host each is as many ranks as --nproc-per-node says.
    least = *least * ranks.value_or(1);
    most = *most * ranks.value_or(1);
    run.ranks = *most;
  } else {
    run.ranks = ranks.value_or(most.value_or(least.value_or(1)));
  }
  if (most && run.ranks > *most)
    throw UsageError("--max: " + std::to_string(*most) + " is less than the " + std::to_string(run.ranks) +
                     " ranks to start");
  if (least && *least > run.ranks)
    throw UsageError("--min: " + std::to_string(*least) + " is more than the " + std::to_string(run.ranks) +
                     " ranks to start");
  constexpr int kRestarts = 3;
  bool const is_elastic = least || most;
  run.policy.min = least.value_or(1);
  run.policy.max_restarts = number("max-restarts", "--max-restarts", 0).value_or(is_elastic ? kRestarts : 0);
}

std::optional<RunOptions> parse(int argc, char** argv) {
  RunOptions run;
  auto const words = split(argc, argv, run.command);
  std::vector<char const*> pointers;
  for (auto const& word : words) pointers.push_back(word.c_str());

  cxxopts::Options options("holdfast run");
  auto add = options.add_options();
  add("n,ranks", "", cxxopts::value<std::string>());
  for (auto const* const name : {"min", "max", "nnodes", "max-restarts", "events", "hosts", "hostfile", "agent"})
    add(name, "", cxxopts::value<std::string>());
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
      constexpr std::string_view kValid[] = {"--ranks",  "--nproc-per-node", "--log-dir",      "--output-filename",
                                             "--quiet",  "--grace",          "--env",          "--mpi",
                                             "--mpirun", "--dry-run",        "--help",         "--min",
                                             "--max",    "--nnodes",         "--max-restarts", "--events",
                                             "--hosts",  "--hostfile",       "--agent"};
      std::string message = "unknown option '" + given.unmatched().front() + "'";
      if (auto const near = nearest(given.unmatched().front(), kValid); !near.empty())
        message += "; did you mean '" + std::string(near) + "'?";
      throw UsageError(message + " Valid: " + join(kValid));
    }
    if (given.count("help") > 0) {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      return std::nullopt;
    }
    Given const text = [&given](char const* option) {
      return given.count(option) > 0 ? std::optional(given[option].as<std::string>()) : std::nullopt;
    };
    set_hosts(run, text);
    set_sizes(run, text);
    if (given.count("events") > 0) run.events = given["events"].as<std::string>();
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

/// The log of this command, into which the ranks write too.
EventLog open_events(std::filesystem::path const& file, std::map<std::string, std::string>& variables) {
  if (file.empty()) return {};
  auto const path = std::filesystem::absolute(file).string();
  variables["HOLDFAST_EVENT_LOG"] = path;
  constexpr int kNoRank = -1;
  return EventLog(path, kNoRank);
}

JobPolicy::Options policy_of(RunOptions const& run, std::map<std::string, std::string> const& variables) {
  auto policy = run.policy;
  auto const set = variables.find("HOLDFAST_ON_LOSS");
  char const* const inherited = std::getenv("HOLDFAST_ON_LOSS");
  std::string const on_loss = set != variables.end() ? set->second : inherited != nullptr ? inherited : "";
  policy.survives = on_loss != "end";
  return policy;
}

int run_locally(RunOptions const& run) {
  auto variables = requested_variables(run);
  if (run.is_dry) {
    auto const job = LocalJob::imagined(run.ranks);
    for (int rank = 0; rank < run.ranks; ++rank) print_plan(job.assignments(rank, variables), run.command);
    return 0;
  }
  if (!run.log_dir.empty()) create_log_dir(run.log_dir);
  LocalJob const job(run.ranks);
  SupervisorSocket const socket(job.folder());
  SupervisorPort port(socket.path(), true);
  variables["HOLDFAST_SUPERVISOR"] = port.address();
  auto events = open_events(run.events, variables);
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
  return supervise(plans, {.speaker = "holdfast run",
                           .grace = run.grace,
                           .time_limit = {},
                           .policy = policy_of(run, variables),
                           .port = &port,
                           .events = &events,
                           .extension = nullptr});
}

/// What a process on another host cannot use, or has of its own.
bool stays_here(std::string_view name) {
  constexpr std::string_view kOwn[] = {"HOME",   "USER",     "LOGNAME", "SHELL", "PWD",   "OLDPWD",
                                       "TMPDIR", "HOSTNAME", "DISPLAY", "TERM",  "SHLVL", "_"};
  constexpr std::string_view kOwnPrefixes[] = {"SSH_", "XDG_", "DBUS_"};
  return std::find(std::begin(kOwn), std::end(kOwn), name) != std::end(kOwn) ||
         std::any_of(std::begin(kOwnPrefixes), std::end(kOwnPrefixes),
                     [name](std::string_view prefix) { return name.substr(0, prefix.size()) == prefix; });
}

/// The job secret, which is handed to agents on their standard input and is no variable of a command line.
std::string take_secret(std::map<std::string, std::string>& environment) {
  std::string secret = std::exchange(environment["HOLDFAST_JOB_SECRET"], {});
  auto const file = std::exchange(environment["HOLDFAST_JOB_SECRET_FILE"], {});
  environment.erase("HOLDFAST_JOB_SECRET");
  environment.erase("HOLDFAST_JOB_SECRET_FILE");
  if (file.empty()) return secret;
  std::ifstream lines(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(lines), {}};
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (text.empty()) throw Error(Errc::bad_config, "HOLDFAST_JOB_SECRET_FILE: cannot read a secret from " + file);
  return text;
}

int run_over_hosts(RunOptions const& run) {
  HostsJob job;
  job.hosts = run.hosts;
  job.agent = run.agent;
  job.of_each.hosts = static_cast<int>(run.hosts.size());
  job.of_each.world_size = run.ranks;
  job.of_each.command = run.command;
  job.of_each.folder = std::filesystem::current_path().string();
  job.of_each.is_quiet = run.is_quiet;
  job.of_each.grace_s = run.grace.count();
  if (!run.log_dir.empty()) job.of_each.log_dir = std::filesystem::absolute(run.log_dir).string();
  if (!run.events.empty()) job.of_each.events = std::filesystem::absolute(run.events).string();
  auto& environment = job.of_each.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string_view const text(*entry);
    auto const equals = std::min(text.find('='), text.size());
    auto const name = text.substr(0, equals);
    if (!stays_here(name) && equals < text.size()) environment[std::string(name)] = text.substr(equals + 1);
  }
  for (auto const& [name, value] : requested_variables(run)) environment[name] = value;
  // The place of an outer job, if any, is not that of these ranks.
  for (auto const* const name : {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS", "HOLDFAST_SUPERVISOR",
                                 "HOLDFAST_EVENT_LOG", "HOLDFAST_JOIN"})
    environment.erase(name);
  if (run.hosts.size() > 1) {
    auto& quorum = environment.try_emplace("HOLDFAST_QUORUM", "majority").first->second;
    if (quorum.empty() || quorum == "auto") quorum = "majority";
    if (quorum == "certified")
      throw UsageError("HOLDFAST_QUORUM: certified needs one host, for nobody sees the processes of a lost one end");
  }
  job.of_each.fences = run.hosts.size() == 1;
  job.policy = policy_of(run, environment);
  job.of_each.survives = job.policy.survives;
  job.of_each.max_restarts = job.policy.max_restarts;
  if (run.is_dry) {
    for (auto const& host : run.hosts) print_plan({}, agent_command_line(job, host.name));
    return 0;
  }
  job.of_each.secret = take_secret(environment);
  return run_on_hosts(job);
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
  plan.environment = environment_with(
      variables, {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS", "HOLDFAST_SUPERVISOR"});
  plan.passes_output_through = true;
  plan.prefixes_errors = false;
  plan.reads_input = true;
  plan.orphan_signal = SIGTERM;  // on which mpirun ends its ranks
  return supervise({plan}, {.speaker = "holdfast run", .grace = run.grace});
}

}  // namespace

int run_command(int argc, char** argv) {
  auto const run = parse(argc, argv);
  if (!run) return 0;
  if (run->through_mpi && !run->hosts.empty())
    throw UsageError("--mpi and --hosts exclude each other; mpirun takes its hosts from --hostfile of its own");
  if (!run->hosts.empty()) return run_over_hosts(*run);
  return run->through_mpi ? run_through_mpi(*run) : run_locally(*run);
}

}  // namespace holdfast::launch
