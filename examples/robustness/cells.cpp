#include "cells.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include <holdfast/runtime/error.hpp>

namespace robustness {
namespace {

using holdfast::Errc;
using holdfast::Error;

constexpr char const* kResultsHead = "table,rule,attack,seed,accuracy,worst";

std::vector<std::string> split(std::string const& line) {
  std::vector<std::string> fields;
  std::stringstream stream(line + ",");
  for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
  return fields;
}

template <class T>
T number(std::string const& text, std::string const& place) {
  T value{};
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(Errc::bad_argument, place + ": '" + text + "' is not a number");
  return value;
}

}  // namespace

std::vector<Cell> read_cells(std::filesystem::path const& file) {
  std::ifstream stream(file);
  if (!stream) throw Error(Errc::not_found, "there are no reference cells in " + file.string());
  std::vector<Cell> cells;
  std::string line;
  std::getline(stream, line);
  for (int row = 2; std::getline(stream, line); ++row) {
    auto const place = file.string() + ", line " + std::to_string(row);
    auto const fields = split(line);
    if (fields.size() != 7) throw Error(Errc::bad_argument, place + ": expected 7 fields");
    Cell cell{fields[0], fields[1], fields[2], {}, number<double>(fields[4], place), std::nullopt, fields[6]};
    auto const dash = fields[3].find('-');
    auto const first = number<std::uint64_t>(fields[3].substr(0, dash), place);
    auto const last = number<std::uint64_t>(fields[3].substr(dash + 1), place);
    for (auto seed = first; seed <= last && seed < first + 100; ++seed) cell.seeds.push_back(seed);
    if (!fields[5].empty()) cell.worst = number<double>(fields[5], place);
    cells.push_back(std::move(cell));
  }
  return cells;
}

Results::Results(std::filesystem::path file) : file_(std::move(file)) {
  std::ifstream stream(file_);
  std::string line;
  if (!std::getline(stream, line)) {
    std::ofstream(file_) << kResultsHead << "\n";
    return;
  }
  if (line != kResultsHead)
    throw Error(Errc::bad_argument, file_.string() + " is no file of results; name another with --out");
  for (int row = 2; std::getline(stream, line); ++row) {
    auto const fields = split(line);
    if (fields.size() != 6) continue;  // cut off when the program ended
    auto const place = file_.string() + ", line " + std::to_string(row);
    Run const run{fields[0], fields[1], fields[2], number<std::uint64_t>(fields[3], place)};
    results_[key(run)] = {number<double>(fields[4], place), number<double>(fields[5], place)};
  }
}

std::string Results::key(Run const& run) {
  return run.table + "," + run.rule + "," + run.attack + "," + std::to_string(run.seed);
}

std::optional<RunResult> Results::find(Run const& run) const {
  auto const found = results_.find(key(run));
  if (found == results_.end()) return std::nullopt;
  return found->second;
}

void Results::add(Run const& run, RunResult const& result) {
  results_[key(run)] = result;
  std::ofstream(file_, std::ios::app) << key(run) << "," << result.accuracy << "," << result.worst << "\n";
}

std::optional<Comparison> compare(Cell const& cell, Results const& results, std::uint64_t most_seeds) {
  auto const over = [&](std::vector<std::uint64_t> const& seeds) {
    Comparison comparison{cell, 0, 0, 100, 0, 0};
    for (auto const seed : seeds) {
      auto const result = results.find({cell.table, cell.rule, cell.attack, seed});
      if (!result) continue;
      comparison.accuracy += result->accuracy;
      comparison.worst += result->worst;
      comparison.least_seed = std::min(comparison.least_seed, result->accuracy);
      comparison.most_seed = std::max(comparison.most_seed, result->accuracy);
      ++comparison.runs;
    }
    comparison.accuracy /= static_cast<double>(std::max<std::size_t>(comparison.runs, 1));
    comparison.worst /= static_cast<double>(std::max<std::size_t>(comparison.runs, 1));
    return comparison;
  };
  auto const asked = over(cell.seeds);
  if (asked.runs != cell.seeds.size()) return std::nullopt;
  if (asked.is_within(kPointsOfNoise)) return asked;
  auto seeds = cell.seeds;
  for (auto seed = seeds.back() + 1; seed < most_seeds; ++seed) seeds.push_back(seed);
  return over(seeds);
}

}  // namespace robustness
