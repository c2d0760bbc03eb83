#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "simulation.hpp"

namespace robustness {

/// One cell of the reference tables: what a rule reaches under an attack, as a mean over seeds.
struct Cell {
  std::string table;
  std::string rule;
  std::string attack;
  std::vector<std::uint64_t> seeds;
  double accuracy = 0;
  std::optional<double> worst;  ///< of the honest members, for the MoNNA tables
  std::string mark;             ///< ~: moves by more than 3 points between seeds; ?: not known

  [[nodiscard]] std::string id() const { return table + "," + rule + "," + attack; }
};

/// @throws holdfast::Error not_found or bad_argument naming the line
[[nodiscard]] std::vector<Cell> read_cells(std::filesystem::path const& file);

/// Results of runs, kept in a CSV file to which each finished run is added at once: an interrupted program goes on
/// where it was.
class Results {
 public:
  /// @throws holdfast::Error bad_argument for a file that holds something else
  explicit Results(std::filesystem::path file);

  [[nodiscard]] std::optional<RunResult> find(Run const& run) const;
  void add(Run const& run, RunResult const& result);

 private:
  static std::string key(Run const& run);
  std::filesystem::path file_;
  std::map<std::string, RunResult> results_;
};

/// A cell beside what was found.
struct Comparison {
  Cell cell;
  double accuracy = 0;
  double worst = 0;
  double least_seed = 0;
  double most_seed = 0;
  std::size_t runs = 0;

  /// Points between the mean that was found and the reference.
  [[nodiscard]] double difference() const { return accuracy - cell.accuracy; }
  [[nodiscard]] bool is_within(double points) const { return difference() <= points && -difference() <= points; }
};

/// A cell this close to its reference is reproduced.
inline constexpr double kPointsOfNoise = 3;

/// Over the seeds of the reference; where that misses, over all later ones that were run, too. None if a seed of the
/// reference was not run.
[[nodiscard]] std::optional<Comparison> compare(Cell const& cell, Results const& results, std::uint64_t most_seeds);

}  // namespace robustness
