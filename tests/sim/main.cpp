#include <cstdio>
#include <string>

#include <cxxopts.hpp>

#include "runs.hpp"
#include "sweep.hpp"

namespace {

using namespace holdfast::sim;

constexpr std::uint64_t kEnough = 1'000;  ///< schedules in which everything must have happened

unsigned long long number(std::uint64_t value) {
  return value;
}

/// @return whether something never happened
bool show(Counts const& counts) {
  bool has_missed = false;
  for (auto const& [name, count] : Counts::all()) {
    std::printf("%-22s %12llu\n", name, number(counts.*count));
    has_missed = has_missed || counts.*count == 0;
  }
  return has_missed;
}

int conclude(Range range, Outcome outcome) {
  bool const missed = show(outcome.counts);
  auto const passed = outcome.done - std::min(outcome.done, outcome.failed);
  if (outcome.done < range.schedules)
    std::printf("stopped after %llu violations: %llu schedules were not run\n", number(outcome.failed),
                number(range.schedules - outcome.done));
  if (missed && range.schedules >= kEnough && outcome.failed == 0) {
    std::printf("something above never happened: the run shows nothing about it\n");
    ++outcome.failed;
  }
  std::printf("%llu passed, %llu failed\n", number(passed), number(outcome.failed));
  return outcome.failed == 0 ? 0 : 1;
}

int run_loudly(Plan const& plan) {
  World world(plan, true);
  auto const violation = world.run();
  std::printf("%s\n", violation.empty() ? "no violation" : violation.c_str());
  return violation.empty() ? 0 : 1;
}

int sweep(std::uint64_t seed, cxxopts::ParseResult const& given) {
  if (given.count("crash") != 0) {
    auto const text = given["crash"].as<std::string>();
    auto const crash = crash_from(text);
    if (!crash) {
      std::fprintf(stderr, "--crash %s: STORY:MEMBER:send:COUNT or STORY:MEMBER:receive:COUNT\n", text.c_str());
      return 2;
    }
    return run_loudly(plan_of(*crash, seed));
  }
  auto const crashes = all_crashes(seed);
  std::printf("seed %llu, a crash at each of %zu steps\n", number(seed), crashes.size());
  auto const told = stories(seed);
  for (std::size_t i = 0; i < told.size(); ++i) std::printf("  %zu  %s\n", i, told[i].name);
  Range const range{0, crashes.size()};
  auto const choose = [&](std::uint64_t at) {
    auto const& crash = crashes[at];
    return Schedule{plan_of(crash, seed), "--sweep --seed " + std::to_string(seed) + " --crash " + to_text(crash)};
  };
  return conclude(range, run(range, choose, given["threads"].as<unsigned>(), given["stop-after"].as<std::uint64_t>()));
}

int run_random(std::uint64_t seed, cxxopts::ParseResult const& given) {
  Range const range{given["first"].as<std::uint64_t>(),
                    given.count("long") != 0 ? 100'000 : given["schedules"].as<std::uint64_t>()};
  auto const members = given["members"].as<std::string>();
  auto const dash = members.find('-');
  auto const fewest = std::stoul(members.substr(0, dash));
  auto const most = dash == std::string::npos ? fewest : std::stoul(members.substr(dash + 1));
  if (fewest < 2 || most < fewest || most > 16) {
    std::fprintf(stderr, "--members %s: from 2 to 16, the fewest first\n", members.c_str());
    return 2;
  }
  auto const job = "--seed " + std::to_string(seed) + " --members " + members;
  // Each schedule has a seed of its own, so that any range of schedules gives what it gives in the whole run.
  auto const choose = [&](std::uint64_t at) {
    return Schedule{make_plan(mix(seed, at), fewest, most),
                    job + " --first " + std::to_string(at) + " --schedules 1 --loud"};
  };
  if (given.count("loud") != 0) return run_loudly(choose(range.first).plan);
  auto const words =
      job + " --first " + std::to_string(range.first) + " --schedules " + std::to_string(range.schedules);
  std::printf("%s\n", words.c_str());
  auto const threads = given["threads"].as<unsigned>();
  auto const stop_after = given["stop-after"].as<std::uint64_t>();
  if (given.count("progress") == 0) return conclude(range, run(range, choose, threads, stop_after));
  return conclude(range,
                  run_resumably(range, choose, threads, stop_after, {given["progress"].as<std::string>(), words}));
}

}  // namespace

int main(int argc, char** argv) {
  cxxopts::Options options("holdfast_sim", "Runs the membership protocol in virtual time against faults.");
  options.add_options()("schedules", "how many", cxxopts::value<std::uint64_t>()->default_value("10000"))(
      "members", "fewest-most at start", cxxopts::value<std::string>()->default_value("3-9"))(
      "seed", "of the run", cxxopts::value<std::uint64_t>()->default_value("1"))(
      "first", "number of the first schedule, to split a run", cxxopts::value<std::uint64_t>()->default_value("0"))(
      "progress", "file that keeps what is done: the same command goes on from there", cxxopts::value<std::string>())(
      "threads", "", cxxopts::value<unsigned>()->default_value("2"))("long", "100,000 schedules")(
      "stop-after", "violations", cxxopts::value<std::uint64_t>()->default_value("10"))("loud", "show what happens")(
      "sweep", "instead: a few stories, with a crash at every step of the protocol in turn")(
      "crash", "with --sweep: one crash only, shown", cxxopts::value<std::string>())("help", "");
  try {
    auto const given = options.parse(argc, argv);
    if (given.count("help") != 0) {
      std::printf("%s\n", options.help().c_str());
      return 0;
    }
    auto const seed = given["seed"].as<std::uint64_t>();
    return given.count("sweep") != 0 ? sweep(seed, given) : run_random(seed, given);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
