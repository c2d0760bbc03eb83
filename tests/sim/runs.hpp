#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "world.hpp"

namespace holdfast::sim {

/// Many schedules on a few threads. They are numbered, so that a range of them gives what it gives in the whole run.
struct Range {
  std::uint64_t first = 0;
  std::uint64_t schedules = 0;
};

struct Outcome {
  Counts counts;
  std::uint64_t done = 0;
  std::uint64_t failed = 0;
  Outcome& operator+=(Outcome const& other);
};

/// The plan of one schedule, and what to type to see it again.
struct Schedule {
  Plan plan;
  std::string again;
};
using Choose = std::function<Schedule(std::uint64_t number)>;

/// Prints the first violations.
/// @param stop_after  as many violations
[[nodiscard]] Outcome run(Range range, Choose const& choose, unsigned threads, std::uint64_t stop_after);

/// A run that can be interrupted: what is done is kept in a file, from which the same run goes on.
struct Progress {
  std::string file;
  std::string job;  ///< what is run; a file of another job is refused
};
/// @throws std::runtime_error on a file that cannot be used
[[nodiscard]] Outcome run_resumably(Range range, Choose const& choose, unsigned threads, std::uint64_t stop_after,
                                    Progress const& progress);

}  // namespace holdfast::sim
