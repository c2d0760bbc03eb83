#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <random>
#include <string>
#include <utility>

#include <cxxopts.hpp>

#include "job.hpp"
#include "judge.hpp"
#include "member.hpp"
#include "plan.hpp"

namespace {

using namespace std::chrono_literals;
using namespace holdfast::chaos;

struct Options {
  JobOptions job;
  std::chrono::seconds seconds{60};
  std::uint64_t seed = 0;
  bool as_json = false;
  bool shows_plan = false;
  bool keeps = false;
};

int run_as_member(int argc, char** argv) {
  if (argc != 6) return 2;
  MemberTask task{argv[2], argv[3], 0, static_cast<std::uint16_t>(std::stoul(argv[5]))};
  if (std::strcmp(argv[4], "mpi") == 0) return run_mpi_member(task);
  task.seat = std::stoul(argv[4]);
  return run_member(task);
}

/// @return false: to be ended here with `status`
bool parse(int argc, char** argv, Options& options, int& status) {
  cxxopts::Options description(
      "holdfast_chaos",
      "Strikes real processes at random while they run rounds, and checks every round at all survivors.");
  auto add = description.add_options();
  add("fabric", "shm, tcp or mpi", cxxopts::value<std::string>()->default_value("shm"));
  add("members", "3 to 6", cxxopts::value<std::size_t>()->default_value("5"));
  add("seconds", "how long", cxxopts::value<long>()->default_value("60"));
  add("seed", "of what happens when; 0: random, printed", cxxopts::value<std::uint64_t>()->default_value("0"));
  add("long", "an hour");
  add("plan", "only show what the seed means");
  add("keep", "leave the folders of all jobs");
  add("json", "one JSON object before the last line");
  add("help", "");
  auto const given = description.parse(argc, argv);
  status = 0;
  if (given.count("help") != 0) return std::printf("%s\n", description.help().c_str()), false;
  status = 2;
  options.job.fabric = given["fabric"].as<std::string>();
  options.job.members = given["members"].as<std::size_t>();
  options.seconds = std::chrono::seconds(given.count("long") != 0 ? 3'600 : given["seconds"].as<long>());
  options.seed = given["seed"].as<std::uint64_t>();
  options.as_json = given.count("json") != 0;
  options.shows_plan = given.count("plan") != 0;
  options.keeps = given.count("keep") != 0;
  options.job.mpirun = HOLDFAST_TEST_MPIRUN;
  if (options.job.fabric != "shm" && options.job.fabric != "tcp" && options.job.fabric != "mpi")
    return std::fprintf(stderr, "--fabric %s: shm, tcp or mpi\n", options.job.fabric.c_str()), false;
  if (options.job.members < 3 || options.job.members > 6)
    return std::fprintf(stderr, "--members %zu: from 3 to 6\n", options.job.members), false;
  if (options.job.fabric == "mpi" && options.job.mpirun.empty())
    return std::fprintf(stderr, "this build has no MPI that keeps survivors alive (Open MPI 5 with ULFM)\n"), false;
  if (options.seed == 0) options.seed = std::random_device{}();
  return true;
}

/// Cables are between hosts, and nobody can join under mpirun.
Plan::Kinds kinds(Options const& options) {
  return {options.job.fabric == "tcp", options.job.fabric != "mpi"};
}

void show_plan(Options const& options) {
  for (std::uint64_t job = 0; job < 3; ++job) {
    std::printf("job %llu\n", static_cast<unsigned long long>(job));
    Plan plan(options.seed, job, kinds(options));
    for (int event = 0; event < 20; ++event) std::printf("  %s\n", describe(plan.next()).c_str());
  }
}

struct Totals {
  Counts counts;
  std::uint64_t jobs = 0;
  std::uint64_t passed = 0;
  std::uint64_t unknown = 0;
  std::uint64_t failed = 0;
};

void run_job(Options const& options, Totals& totals, Job::Clock::time_point until) {
  Plan plan(options.seed, totals.jobs, kinds(options));
  Job job(options.job);
  auto wrong = job.start();
  if (wrong.empty()) wrong = job.run(plan, until);
  if (wrong.empty()) wrong = job.finish();
  auto verdict = judge(job.folder(), job.seats(), job.killed());
  // What was found first explains that records have no end.
  if (!wrong.empty()) verdict.wrong.insert(verdict.wrong.begin(), wrong);
  totals.counts += job.counts();
  totals.passed += verdict.rounds;
  totals.unknown += verdict.unknown;
  totals.failed += verdict.wrong.size();
  if (!verdict.wrong.empty()) {
    job.keep_folder();
    std::printf("job %llu: what happened, and who said what, is in %s\n", static_cast<unsigned long long>(totals.jobs),
                job.folder().c_str());
    constexpr std::size_t kShown = 10;
    for (std::size_t at = 0; at < std::min(kShown, verdict.wrong.size()); ++at)
      std::printf("  WRONG: %s\n", verdict.wrong[at].c_str());
  }
  if (options.keeps)
    job.keep_folder(),
        std::printf("job %llu: %s\n", static_cast<unsigned long long>(totals.jobs), job.folder().c_str());
  std::fflush(stdout);
  ++totals.jobs;
}

void show(Options const& options, Totals const& totals) {
  auto const& counts = totals.counts;
  std::pair<char const*, std::uint64_t> const numbers[] = {
      {"members", options.job.members},
      {"seed", options.seed},
      {"jobs", totals.jobs},
      {"rounds", totals.passed},
      {"kills", counts.kills},
      {"stops", counts.stops},
      {"continues", counts.continues},
      {"cuts", counts.cuts},
      {"heals", counts.heals},
      {"joins", counts.joins},
      {"evictions", counts.evictions},
      {"view_changes", counts.view_changes},
      {"jobs_without_quorum", counts.parked_jobs},
      {"rounds_of_unseen_views", totals.unknown},
      {"failed", totals.failed},
  };
  std::string text = options.as_json ? "{\"fabric\": \"" + options.job.fabric + "\"" : options.job.fabric;
  for (auto const& [name, value] : numbers)
    text += (options.as_json ? ", \"" + std::string(name) + "\": " : ", " + std::string(name) + " ") +
            std::to_string(value);
  std::printf("%s%s\n", text.c_str(), options.as_json ? "}" : "");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc > 1 && std::strcmp(argv[1], "member") == 0) return run_as_member(argc, argv);
  Options options;
  int status = 0;
  if (!parse(argc, argv, options, status)) return status;
  std::printf("seed %llu: --fabric %s --members %zu --seconds %lld --seed %llu strikes the same way again\n",
              static_cast<unsigned long long>(options.seed), options.job.fabric.c_str(), options.job.members,
              static_cast<long long>(options.seconds.count()), static_cast<unsigned long long>(options.seed));
  if (options.shows_plan) return show_plan(options), 0;
  std::fflush(stdout);
  Totals totals;
  auto const until = Job::Clock::now() + options.seconds;
  // A job that is about to begin when time is nearly up would show nothing.
  while (totals.jobs == 0 || Job::Clock::now() + 3s < until) run_job(options, totals, until);
  auto const& counts = totals.counts;
  auto const number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  if (options.seconds >= 20s && totals.failed == 0 &&
      (counts.kills == 0 || counts.stops == 0 || counts.view_changes == 0 ||
       (kinds(options).has_cuts && counts.cuts == 0) || (kinds(options).has_joins && counts.joins == 0))) {
    std::printf("a kind of fault, or a change of view, never happened: the run shows nothing about it\n");
    ++totals.failed;
  }
  show(options, totals);
  std::printf("%llu passed, %llu failed\n", number(totals.passed), number(totals.failed));
  return totals.failed == 0 ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
