#include "bench_faults.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include <holdfast/runtime/error.hpp>

#include "bench_plan.hpp"
#include "emulated_hosts.hpp"
#include "fault_board.hpp"
#include "fault_job.hpp"
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
      --fault NAMES        several with commas; default kill,kill-coordinator,stop
                             kill              SIGKILL of a member that is not the coordinator
                             kill-coordinator  SIGKILL of the coordinator
                             stop              SIGSTOP of a member
                             cut               the cable of one host is pulled, and plugged in again later
                             host              a host without power: silence, and its processes are gone
                             join              one more member comes; recovery is then the longest time between two
                                               rounds of the others, less the steady round
      --hosts H            for cut and host: hosts that the ranks are spread over in blocks; default 3 (2 for 2 ranks).
                           Each is a network namespace of its own on this machine, with fabric tcp
      --state B            registered state that a joining member fetches; default 192M
      --join-rate R        bytes per second at which it is sent; default 200000000; 0: as fast as it goes
      --quorum Q           majority or certified; default majority
      --tries T            default 10
      --seed S             of the instants and victims; default random, printed
      --json               one JSON object per fault instead of the table
  -h, --help               this text

With cut, the last host is cut off. If its members are no majority, the others go on without them; healed, they learn
that, end, and a fresh member for each joins: the time from healing until the last of them commits is printed beside.
If no side has a majority (--hosts 2), everybody waits: recovery is then from healing to the last member's next commit.

JSON keys: fault, fabric, ranks, bytes, quorum, tries, recovered, recovery_ms_median, recovery_ms_max, steady_ms (median
time of a round before the fault), wrong (rounds with another result than the mean of their contributors), seed; for cut
with a majority left, back_ms_median: from healing until all are members again.
)";

constexpr std::string_view kFaults[] = {"kill", "kill-coordinator", "stop", "cut", "host", "join"};
constexpr auto kStartLimit = 60s;
constexpr auto kRecoveryLimit = 20s;
constexpr auto kJoinLimit = 60s;
constexpr auto kCutTime = 1500ms;  // longer than any suspicion takes
constexpr std::uint64_t kStateOfReturning = 4U << 20U;
constexpr std::uint64_t kRoundsBefore = 20;
constexpr std::uint64_t kRoundsAfter = 5;

struct Options {
  FaultJobOptions job;
  std::vector<std::string> faults;
  std::uint64_t state_bytes = 0;
  int hosts = 0;
  int tries = 10;
  std::uint64_t seed = 0;
  bool as_json = false;
};

struct Try {
  std::optional<double> recovery_ms;
  std::optional<double> back_ms;
  double steady_ms = 0;
  std::uint64_t wrong = 0;
};

double ms_since(std::int64_t instant) {
  return static_cast<double>(monotonic_ns() - instant) / 1e6;
}

std::vector<int> seats_of(int count) {
  std::vector<int> seats(static_cast<std::size_t>(count));
  std::iota(seats.begin(), seats.end(), 0);
  return seats;
}

/// Waits until these have committed in a view after `view`. @return since `struck`; nothing if they did not
std::optional<double> recovery_of(FaultJob& job, std::vector<int> const& survivors, std::uint64_t view,
                                  std::int64_t struck) {
  if (!job.wait_for(survivors, kRecoveryLimit, [&](auto const& one) { return one.view.load() > view; })) return {};
  std::int64_t latest = struck;
  for (int const seat : survivors) {
    auto const& one = job.member(seat);
    latest = std::max(latest, one.first_commit[one.view.load() % FaultBoard::kMostViews].load());
  }
  return static_cast<double>(latest - struck) / 1e6;
}

/// A newcomer in a running loop: how long the others wait for their next round because of it.
void try_join(FaultJob& job, std::vector<int> everyone, Try& result) {
  for (int const seat : everyone) job.member(seat).longest_gap_ns.store(0);
  auto const old = everyone;
  int const newcomer = static_cast<int>(everyone.size());
  job.join(newcomer, 0);
  everyone.push_back(newcomer);
  bool const entered =
      job.wait_for(everyone, kJoinLimit, [&](auto const& one) { return one.commits.load() >= kRoundsAfter; }) &&
      job.wait_for(old, kJoinLimit,
                   [&](auto const& one) { return one.view.load() == job.member(newcomer).view.load(); });
  std::int64_t longest = 0;
  for (int const seat : old) longest = std::max(longest, job.member(seat).longest_gap_ns.load());
  if (entered && job.finish(everyone))
    result.recovery_ms = std::max(0.0, static_cast<double>(longest) / 1e6 - result.steady_ms);
  for (int const seat : everyone) result.wrong += job.member(seat).wrong.load();
}

/// Nobody has a majority until the cable is back.
void try_split(FaultJob& job, EmulatedHosts& hosts, std::vector<int> const& everyone, Try& result) {
  job.idle(kCutTime);
  std::vector<std::uint64_t> before;
  for (int const seat : everyone) before.push_back(job.member(seat).commits.load());
  auto const healed = monotonic_ns();
  hosts.set_cut(hosts.size() - 1, false);
  bool const go_on = job.wait_for(everyone, kRecoveryLimit, [&](auto const& one) {
    return one.commits.load() > before[static_cast<std::size_t>(&one - &job.member(0))];
  });
  auto const recovery = ms_since(healed);
  if (go_on && job.finish(everyone)) result.recovery_ms = recovery;
}

/// The members of the host that was cut off learn that the others went on, and fresh ones take their places.
void try_return(FaultJob& job, EmulatedHosts& hosts, std::vector<int> survivors, std::vector<int> const& cut_off,
                Try& result) {
  auto const cut_at = monotonic_ns();
  while (ms_since(cut_at) < std::chrono::duration<double, std::milli>(kCutTime).count()) job.idle(10ms);
  std::vector<std::uint64_t> parked_at;
  for (int const seat : cut_off) parked_at.push_back(job.member(seat).commits.load());
  auto const healed = monotonic_ns();
  hosts.set_cut(hosts.size() - 1, false);
  std::vector<int> returning;
  for (std::size_t index = 0; index < cut_off.size(); ++index) {
    auto const& one = job.member(cut_off[index]);
    while (one.ended.load() == 0 && ms_since(healed) < 1e3 * std::chrono::seconds(kRecoveryLimit).count())
      job.idle(200us);
    // Whoever committed anything in between did so without a majority.
    if (one.ended.load() != 1 + static_cast<int>(Errc::evicted) || one.commits.load() != parked_at[index]) return;
    returning.push_back(static_cast<int>(survivors.size() + cut_off.size() + index));
    job.join(returning.back(), cut_off[index]);
  }
  if (!job.wait_for(returning, kJoinLimit, [](auto const& one) { return one.commits.load() > 0; })) return;
  result.back_ms = ms_since(healed);
  survivors.insert(survivors.end(), returning.begin(), returning.end());
  if (!job.finish(survivors)) result.back_ms.reset();
}

void try_network_fault(FaultJob& job, Options const& options, std::string const& fault, std::mt19937_64& random,
                       Try& result) {
  auto& hosts = *options.job.hosts;
  std::map<int, std::vector<int>> on;
  for (int const seat : seats_of(options.job.ranks)) on[job.host_of(seat)].push_back(seat);
  auto const leaves_majority = [&](int host) {
    return 2 * (options.job.ranks - static_cast<int>(on[host].size())) > options.job.ranks;
  };
  int host = hosts.size() - 1;
  if (fault == "host") {
    std::vector<int> candidates;
    for (auto const& [candidate, seats] : on)
      if (leaves_majority(candidate)) candidates.push_back(candidate);
    host = candidates[std::uniform_int_distribution<std::size_t>(0, candidates.size() - 1)(random)];
  }
  std::vector<int> survivors;
  for (int const seat : seats_of(options.job.ranks))
    if (job.host_of(seat) != host) survivors.push_back(seat);
  auto const view = job.member(survivors.front()).view.load();
  auto const struck = monotonic_ns();
  hosts.set_cut(host, true);
  if (fault == "host") {
    for (int const seat : on[host]) job.strike(seat, SIGKILL);
  } else if (!leaves_majority(host)) {
    return try_split(job, hosts, seats_of(options.job.ranks), result);
  }
  auto const recovery = recovery_of(job, survivors, view, struck);
  if (!recovery) return;
  if (fault == "host") {
    if (job.finish(survivors)) result.recovery_ms = recovery;
    return;
  }
  try_return(job, hosts, survivors, on[host], result);
  if (result.back_ms) result.recovery_ms = recovery;
}

Try try_once(Options const& options, std::string const& fault, std::mt19937_64& random) {
  bool const is_of_network = fault == "cut" || fault == "host";
  auto job_options = options.job;
  if (!is_of_network) job_options.hosts = nullptr;
  if (fault == "join") job_options.plan.state_bytes = options.state_bytes;
  if (fault == "cut") job_options.plan.state_bytes = kStateOfReturning;
  FaultJob job(job_options);
  auto const everyone = seats_of(options.job.ranks);
  bool const runs =
      job.wait_for(everyone, kStartLimit, [](auto const& one) { return one.commits.load() >= kRoundsBefore; });
  if (!runs) throw Error(Errc::start_failed, "the members of a try did not start; HOLDFAST_LOG_LEVEL=info shows why");

  Try result;
  std::vector<double> steady;
  for (int const seat : everyone)
    for (auto const& ns : job.member(seat).round_ns) steady.push_back(static_cast<double>(ns.load()) / 1e6);
  result.steady_ms = median(steady);

  if (fault == "join") {
    try_join(job, everyone, result);
    return result;
  }
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(
      std::uniform_real_distribution<double>(0, 3 * result.steady_ms)(random)));
  if (is_of_network) {
    try_network_fault(job, options, fault, random, result);
    // Nobody may be left behind a cable that is pulled, for the next try.
    for (int host = 0; host < options.job.hosts->size(); ++host) options.job.hosts->set_cut(host, false);
    for (int const seat : everyone) result.wrong += job.member(seat).wrong.load();
    return result;
  }
  int const victim =
      fault == "kill-coordinator" ? 0 : std::uniform_int_distribution<int>(1, options.job.ranks - 1)(random);
  std::vector<int> survivors;
  for (int const seat : everyone)
    if (seat != victim) survivors.push_back(seat);
  auto const view = job.member(survivors.front()).view.load();
  auto const struck = monotonic_ns();
  job.strike(victim, fault == "stop" ? SIGSTOP : SIGKILL);
  auto const recovery = recovery_of(job, survivors, view, struck);
  if (recovery && job.finish(survivors)) result.recovery_ms = recovery;
  for (int const seat : survivors) result.wrong += job.member(seat).wrong.load();
  return result;
}

/// What cannot be measured is said before anything starts.
void check(Options& options) {
  auto const has = [&](std::string_view fault) {
    return std::find(options.faults.begin(), options.faults.end(), fault) != options.faults.end();
  };
  if (options.job.plan.fabric == "mpi" && has("join"))
    throw UsageError("--fault join: nobody can join the mpi fabric; use --fabric shm or tcp");
  if (!has("cut") && !has("host")) {
    if (options.hosts != 0) throw UsageError("--hosts: for --fault cut and host only");
    return;
  }
  if (options.job.plan.fabric != "tcp") throw UsageError("--fault cut and host are between hosts; use --fabric tcp");
  if (options.job.quorum != "majority")
    throw UsageError(
        "--fault cut and host: certificates come from an agent on each host, which these have not; use "
        "--quorum majority");
  if (options.hosts == 0) options.hosts = std::min(3, options.job.ranks);
  if (options.hosts > options.job.ranks)
    throw UsageError("--hosts: " + std::to_string(options.hosts) + " is more than the " +
                     std::to_string(options.job.ranks) + " ranks; give every host one");
  if (has("host") && options.hosts < 3)
    throw UsageError("--fault host: of " + std::to_string(options.hosts) +
                     " hosts, those left would be no majority and wait; use --hosts 3 or more");
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
  add("hosts", "", text(""));
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
    constexpr std::string_view kValid[] = {"--fabric", "--ranks", "--bytes",     "--fault", "--hosts", "--quorum",
                                           "--tries",  "--state", "--join-rate", "--seed",  "--json",  "--help"};
    if (!given.unmatched().empty())
      throw UsageError("unknown option '" + given.unmatched().front() + "' Valid: " + join(kValid));
    auto const word = [&](char const* option) { return given[option].as<std::string>(); };
    constexpr std::string_view kFabrics[] = {"shm", "tcp", "mpi"};
    constexpr std::string_view kQuorums[] = {"majority", "certified"};
    options.job.plan.fabric = require_one_of("--fabric", word("fabric"), kFabrics);
    options.job.ranks =
        static_cast<int>(parse_integer("--ranks", word("ranks"), 2, static_cast<long>(FaultBoard::kMostMembers)));
    auto const sizes = parse_byte_sizes("--bytes", word("bytes"));
    if (sizes.size() != 1 || sizes.front() < 64) throw UsageError("--bytes: one size of at least 64 bytes");
    options.job.plan.bytes = sizes.front();
    std::string const faults = word("fault");
    for (std::size_t begin = 0; begin <= faults.size();) {
      auto const end = std::min(faults.find(',', begin), faults.size());
      options.faults.emplace_back(require_one_of("--fault", faults.substr(begin, end - begin), kFaults));
      begin = end + 1;
    }
    options.job.quorum = require_one_of("--quorum", word("quorum"), kQuorums);
    options.tries = static_cast<int>(parse_integer("--tries", word("tries"), 1, 10'000));
    auto const state = parse_byte_sizes("--state", word("state"));
    if (state.size() != 1 || state.front() < sizeof(float)) throw UsageError("--state: one size of at least 4 bytes");
    options.state_bytes = state.front();
    options.job.join_rate = static_cast<std::uint64_t>(parse_integer("--join-rate", word("join-rate"), 0, 1L << 40));
    options.seed = word("seed").empty()
                       ? std::random_device{}()
                       : static_cast<std::uint64_t>(parse_integer("--seed", word("seed"), 0, 1L << 62));
    options.as_json = given.count("json") > 0;
    if (!word("hosts").empty())
      options.hosts =
          static_cast<int>(parse_integer("--hosts", word("hosts"), 2, static_cast<long>(FaultBoard::kMostMembers)));
    check(options);
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast bench faults --help");
  }
  return options;
}

}  // namespace

int bench_faults_command(int argc, char** argv) {
  bool helped = false;
  auto options = parse(argc, argv, helped);
  if (helped) return 0;
  std::optional<EmulatedHosts> hosts;
  if (options.hosts > 0) options.job.hosts = &hosts.emplace(options.hosts);
  std::mt19937_64 random(options.seed);
  bool all_well = true;
  if (!options.as_json)
    std::printf("# %s, %d members, %llu bytes, %s quorum, seed %llu\n%18s %6s %10s %12s %12s %10s %6s\n",
                options.job.plan.fabric.c_str(), options.job.ranks,
                static_cast<unsigned long long>(options.job.plan.bytes), options.job.quorum.c_str(),
                static_cast<unsigned long long>(options.seed), "fault", "tries", "recovered", "median ms", "max ms",
                "steady ms", "wrong");
  for (auto const& fault : options.faults) {
    std::vector<double> recoveries;
    std::vector<double> backs;
    std::vector<double> steady;
    std::uint64_t wrong = 0;
    for (int number = 0; number < options.tries; ++number) {
      auto const one = try_once(options, fault, random);
      if (one.recovery_ms) recoveries.push_back(*one.recovery_ms);
      if (one.back_ms) backs.push_back(*one.back_ms);
      steady.push_back(one.steady_ms);
      wrong += one.wrong;
    }
    bool const is_well = static_cast<int>(recoveries.size()) == options.tries && wrong == 0;
    all_well = all_well && is_well;
    auto const middle = recoveries.empty() ? 0 : median(recoveries);
    auto const longest = recoveries.empty() ? 0 : *std::max_element(recoveries.begin(), recoveries.end());
    if (options.as_json) {
      nlohmann::ordered_json line{{"fault", fault},
                                  {"fabric", options.job.plan.fabric},
                                  {"ranks", options.job.ranks},
                                  {"bytes", options.job.plan.bytes},
                                  {"quorum", options.job.quorum},
                                  {"tries", options.tries},
                                  {"recovered", recoveries.size()},
                                  {"recovery_ms_median", middle},
                                  {"recovery_ms_max", longest},
                                  {"steady_ms", median(steady)},
                                  {"wrong", wrong},
                                  {"seed", options.seed}};
      if (!backs.empty()) line["back_ms_median"] = median(backs);
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf("%18s %6d %10zu %12.1f %12.1f %10.2f %6llu\n", fault.c_str(), options.tries, recoveries.size(),
                  middle, longest, median(steady), static_cast<unsigned long long>(wrong));
      if (!backs.empty()) std::printf("%18s all members again %.1f ms after healing (median)\n", "", median(backs));
    }
    std::fflush(stdout);
  }
  return all_well ? 0 : 1;
}

}  // namespace holdfast::launch
