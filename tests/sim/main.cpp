#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <cxxopts.hpp>

#include "world.hpp"

namespace {

using holdfast::sim::Counts;

struct Job {
  std::uint64_t seed = 1;
  std::uint64_t first = 0;
  std::uint64_t schedules = 0;
  std::size_t fewest = 3;
  std::size_t most = 9;
};

struct Result {
  Counts counts;
  std::uint64_t done = 0;
  std::uint64_t failed = 0;
};

/// Schedule k of a run has a seed of its own, so that any range of schedules gives what it gives in the whole run.
std::uint64_t seed_of(Job const& job, std::uint64_t schedule) {
  return holdfast::sim::mix(job.seed, schedule);
}

Result run(Job const& job, unsigned threads, std::uint64_t stop_after) {
  std::atomic<std::uint64_t> next{job.first};
  std::mutex mutex;
  Result total;
  auto const work = [&] {
    Counts counts;
    std::uint64_t done = 0;
    while (true) {
      auto const schedule = next++;
      if (schedule >= job.first + job.schedules) break;
      holdfast::sim::World world(holdfast::sim::make_plan(seed_of(job, schedule), job.fewest, job.most));
      auto const violation = world.run();
      counts += world.counts();
      ++done;
      if (violation.empty()) continue;
      std::lock_guard const lock(mutex);
      if (++total.failed <= 10)
        std::printf(
            "VIOLATION in schedule %llu of seed %llu: %s\n  again: --seed %llu --first %llu --schedules 1 --members "
            "%zu-%zu --loud\n",
            static_cast<unsigned long long>(schedule), static_cast<unsigned long long>(job.seed), violation.c_str(),
            static_cast<unsigned long long>(job.seed), static_cast<unsigned long long>(schedule), job.fewest, job.most);
      if (total.failed >= stop_after) next = job.first + job.schedules;
    }
    std::lock_guard const lock(mutex);
    total.counts += counts;
    total.done += done;
  };
  {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < threads; ++i) workers.emplace_back(work);
  }
  return total;
}

/// Everything must have happened in a run that is long enough for it.
bool has_missed(Counts const& counts) {
  bool has_missed = false;
  auto const show = [&](char const* name, std::uint64_t count) {
    std::printf("%-22s %12llu\n", name, static_cast<unsigned long long>(count));
    has_missed = has_missed || count == 0;
  };
  show("view changes", counts.view_changes);
  show("resolved rounds", counts.resolved);
  show("redone rounds", counts.redone);
  show("handed over", counts.handed_over);
  show("parks", counts.parks);
  show("unparks", counts.unparks);
  show("joins", counts.joins);
  show("evictions", counts.evictions);
  show("leaves", counts.leaves);
  show("fences", counts.fences);
  show("rounds committed", counts.commits);
  show("exchanges", counts.exchanges);
  show("quorums that went on", counts.judged_live);
  show("groups that parked", counts.judged_parked);
  return has_missed;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::uint64_t kEnough = 1'000;
  cxxopts::Options options("holdfast_sim", "Runs the membership protocol in virtual time against random faults.");
  options.add_options()("schedules", "how many", cxxopts::value<std::uint64_t>()->default_value("10000"))(
      "members", "fewest-most at start", cxxopts::value<std::string>()->default_value("3-9"))(
      "seed", "of the run", cxxopts::value<std::uint64_t>()->default_value("1"))(
      "first", "number of the first schedule, to split or resume a run",
      cxxopts::value<std::uint64_t>()->default_value("0"))(
      "threads", "", cxxopts::value<unsigned>()->default_value("2"))("long", "100,000 schedules")(
      "stop-after", "violations", cxxopts::value<std::uint64_t>()->default_value("10"))("loud", "show what happens")(
      "help", "");
  try {
    auto const given = options.parse(argc, argv);
    if (given.count("help") != 0) {
      std::printf("%s\n", options.help().c_str());
      return 0;
    }
    Job job;
    job.seed = given["seed"].as<std::uint64_t>();
    job.first = given["first"].as<std::uint64_t>();
    job.schedules = given.count("long") != 0 ? 100'000 : given["schedules"].as<std::uint64_t>();
    auto const members = given["members"].as<std::string>();
    auto const dash = members.find('-');
    job.fewest = std::stoul(members.substr(0, dash));
    job.most = dash == std::string::npos ? job.fewest : std::stoul(members.substr(dash + 1));
    if (job.fewest < 2 || job.most < job.fewest || job.most > 16) {
      std::fprintf(stderr, "--members %s: from 2 to 16, the fewest first\n", members.c_str());
      return 2;
    }
    if (given.count("loud") != 0) {
      holdfast::sim::World world(holdfast::sim::make_plan(seed_of(job, job.first), job.fewest, job.most), true);
      auto const violation = world.run();
      std::printf("%s\n", violation.empty() ? "no violation" : violation.c_str());
      return violation.empty() ? 0 : 1;
    }
    std::printf("seed %llu, schedules %llu to %llu, %zu to %zu members\n", static_cast<unsigned long long>(job.seed),
                static_cast<unsigned long long>(job.first),
                static_cast<unsigned long long>(job.first + job.schedules - 1), job.fewest, job.most);
    auto result = run(job, given["threads"].as<unsigned>(), given["stop-after"].as<std::uint64_t>());
    bool const missed = has_missed(result.counts);
    auto const passed = result.done - result.failed;
    if (result.done < job.schedules)
      std::printf("stopped after %llu violations: %llu schedules were not run\n",
                  static_cast<unsigned long long>(result.failed),
                  static_cast<unsigned long long>(job.schedules - result.done));
    if (missed && job.schedules >= kEnough && result.failed == 0) {
      std::printf("something above never happened: the run shows nothing about it\n");
      ++result.failed;
    }
    std::printf("%llu passed, %llu failed\n", static_cast<unsigned long long>(passed),
                static_cast<unsigned long long>(result.failed));
    return result.failed == 0 ? 0 : 1;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
