#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <holdfast/collectives/dtype.hpp>

namespace holdfast::launch {

/// What `holdfast bench` measures.
struct BenchPlan {
  bool is_aggregate = false;  ///< else all-reduce (sum)
  std::string fabric = "shm";
  int ranks = 2;
  std::vector<std::uint64_t> sizes;
  std::string rule = "mean";
  int byzantine = 0;
  bool uses_arena = true;
  bool commits = false;  ///< time begin + collective + commit; else the collective alone, inside an open round
  DType dtype = DType::float32;
  int iterations = 0;  ///< of one size in one repeat; 0: by size
};

/// Rounds hold at most this many measured collectives.
inline constexpr int kCollectivesPerRound = 256;
/// Iterations before the measured ones.
inline constexpr int kWarmup = 3;

/// Measured iterations of one size: many for latency, few for messages of many megabytes.
[[nodiscard]] int iterations_for(BenchPlan const& plan, std::uint64_t bytes);

/// What one start of the ranks found out about one size.
struct Measurement {
  std::uint64_t bytes = 0;
  std::uint64_t wrong = 0;      ///< elements that differ from the expected result, over all ranks
  std::vector<double> seconds;  ///< of each iteration, the slowest rank's
};

/// One line per measurement: bytes, wrong, then the times. The same form for all programs that measure.
[[nodiscard]] std::string measurement_line(Measurement const& measurement);
/// @throws Error environment when the file is not there or damaged, which means that the ranks failed
[[nodiscard]] std::vector<Measurement> read_measurements(std::filesystem::path const& file);

/// Middle value; mean of the middle two for an even number. `values` may not be empty.
[[nodiscard]] double median(std::vector<double> values);

/// A plan as one command-line argument, and back.
[[nodiscard]] std::string encode(BenchPlan const& plan);
[[nodiscard]] BenchPlan decode_plan(std::string const& text);

/// @throws UsageError listing the valid names
[[nodiscard]] DType parse_dtype(std::string_view option, std::string_view text);

}  // namespace holdfast::launch
