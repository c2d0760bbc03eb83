// Runs the tables of robust training on handwritten digits again and compares each cell with its reference.
#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../common/flags.hpp"
#include "../common/guarded.hpp"
#include "../common/report.hpp"
#include "cells.hpp"
#include "page.hpp"
#include "simulation.hpp"

namespace {

using robustness::Cell;
using robustness::Run;

/// A few minutes of cells that tell most, for a build server.
bool is_in_subset(Cell const& cell) {
  auto const is_one_of = [](std::string const& word, std::initializer_list<char const*> words) {
    return std::any_of(words.begin(), words.end(), [&](char const* each) { return word == each; });
  };
  if (cell.table == "monna_iid") return cell.rule == "nna" && is_one_of(cell.attack, {"sf", "rand"});
  return cell.table == "iid" && is_one_of(cell.rule, {"caf", "nnm+trmean", "mean", "bulyan", "flag", "cc0.1x3"}) &&
         is_one_of(cell.attack, {"none", "ipm", "foe", "sf1000", "mimic"});
}

std::vector<Cell> chosen_cells(cxxopts::ParseResult const& given) {
  auto const matches = [&](char const* flag, std::string const& word) {
    if (given.count(flag) == 0) return true;
    auto const& words = given[flag].as<std::vector<std::string>>();
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  std::vector<Cell> cells;
  for (auto& cell : robustness::read_cells(given["reference"].as<std::string>())) {
    if (!matches("table", cell.table) || !matches("rule", cell.rule) || !matches("attack", cell.attack)) continue;
    if (given.count("long") == 0 && given.count("table") == 0 && given.count("rule") == 0 && !is_in_subset(cell))
      continue;
    cells.push_back(std::move(cell));
  }
  if (cells.empty())
    throw holdfast::Error(holdfast::Errc::bad_argument, "no reference cell has this table, rule and attack");
  return cells;
}

/// Runs what is missing, several at a time. Each result is kept as soon as it is there.
void run_all(robustness::Classifier const& classifier, std::vector<Run> const& runs, robustness::Results& results,
             int threads) {
  examples::Progress progress(true, runs.size());
  std::mutex mutex;
  std::atomic<std::size_t> next{0};
  std::size_t done = 0;
  std::exception_ptr problem;
  auto const work = [&] {
    for (std::size_t index = next++; index < runs.size(); index = next++) {
      auto const& run = runs[index];
      try {
        auto const result = robustness::simulate(classifier, run);
        std::lock_guard const lock(mutex);
        results.add(run, result);
        progress.update(++done, run.table + " " + run.rule + " " + run.attack + " " +
                                    examples::json_number(result.accuracy) + " %");
      } catch (...) {
        std::lock_guard const lock(mutex);
        problem = std::current_exception();
        next = runs.size();
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    for (int thread = 0; thread < threads; ++thread) pool.emplace_back(work);
  }
  progress.finish();
  if (problem) std::rethrow_exception(problem);
}

int experiments(int argc, char** argv) {
  cxxopts::Options options(
      "robustness",
      "Trains on handwritten digits with members that lie, all in this process, and compares what\n"
      "is reached with the reference tables. Results are kept: a run that was interrupted goes on.\n");
  auto add = options.add_options();
  add("data", "images of examples/data/prepare", cxxopts::value<std::string>()->default_value("build/data/digits.csv"));
  add("reference", "CSV of the reference cells", cxxopts::value<std::string>()->default_value(REFERENCE_CSV));
  add("out", "folder of the results", cxxopts::value<std::string>()->default_value("build/robustness"));
  add("table", "only these tables", cxxopts::value<std::vector<std::string>>());
  add("rule", "only these rules, by their name in the tables", cxxopts::value<std::vector<std::string>>());
  add("attack", "only these attacks", cxxopts::value<std::vector<std::string>>());
  add("long", "all cells; without it and without a choice a subset of a few minutes");
  add("seeds", "run so many seeds where the first ones miss by more than 3 points; 0: as many as the reference",
      cxxopts::value<std::uint64_t>()->default_value("0"));
  add("threads", "runs at a time; 0: as many as there are cores", cxxopts::value<int>()->default_value("0"));
  add("require", "exit with status 1 if less than this percentage of unmarked cells is within 3 points",
      cxxopts::value<double>()->default_value("0"));
  add("help", "show this");
  auto const given = examples::parse_flags(options, argc, argv);
  if (given.count("help") != 0) return std::cout << options.help(), 0;
  auto const cells = chosen_cells(given);
  auto const more_seeds = given["seeds"].as<std::uint64_t>();
  int const asked = given["threads"].as<int>();
  int const threads = std::clamp(asked > 0 ? asked : static_cast<int>(std::thread::hardware_concurrency()), 1, 256);
  robustness::Classifier const classifier(examples::load_image_table(given["data"].as<std::string>()));
  std::filesystem::path const out = given["out"].as<std::string>();
  std::filesystem::create_directories(out);
  robustness::Results results(out / "runs.csv");

  constexpr double kPoints = robustness::kPointsOfNoise;
  std::uint64_t const most_seeds = std::max<std::uint64_t>(more_seeds, 6);
  auto const run_missing = [&](std::vector<Cell> const& of) {
    std::vector<Run> runs;
    for (auto const& cell : of)
      for (auto const seed : cell.seeds) {
        Run const run{cell.table, cell.rule, cell.attack, seed};
        if (!results.find(run)) runs.push_back(run);
      }
    run_all(classifier, runs, results, threads);
  };
  run_missing(cells);
  std::vector<Cell> missed;
  for (auto cell : cells) {
    auto const comparison = compare(cell, results, most_seeds);
    if (more_seeds == 0 || !comparison || comparison->is_within(kPoints)) continue;
    for (auto seed = cell.seeds.back() + 1; seed < more_seeds; ++seed) cell.seeds.push_back(seed);
    missed.push_back(std::move(cell));
  }
  run_missing(missed);

  std::vector<robustness::Comparison> comparisons;
  std::size_t unmarked = 0, within = 0;
  for (auto const& cell : cells) {
    auto const comparison = compare(cell, results, most_seeds);
    if (!comparison) continue;
    comparisons.push_back(*comparison);
    bool const fits = comparison->is_within(kPoints);
    if (cell.mark.empty()) ++unmarked, within += fits ? 1 : 0;
    if (!fits)
      std::cout << cell.id() << cell.mark << ": " << examples::json_number(comparison->accuracy) << " %, reference "
                << examples::json_number(cell.accuracy) << " % (" << comparison->runs << " seeds, "
                << examples::json_number(comparison->least_seed) << " to "
                << examples::json_number(comparison->most_seed) << ")\n";
  }
  write_summary(out / "summary.csv", comparisons);
  write_page(out / "robustness.html", comparisons);
  double const share = unmarked == 0 ? 100 : 100.0 * static_cast<double>(within) / static_cast<double>(unmarked);
  std::cout << within << " of " << unmarked << " unmarked cells within " << kPoints << " points ("
            << examples::json_number(share) << " %); " << comparisons.size() - unmarked
            << " marked ones beside them in " << (out / "summary.csv").string() << "; plot in "
            << (out / "robustness.html").string() << std::endl;
  return share >= given["require"].as<double>() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::guarded("robustness", [&] { return experiments(argc, argv); });
}
