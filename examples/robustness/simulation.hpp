#pragma once

#include <cstdint>
#include <string>

#include "classifier.hpp"

namespace robustness {

/// One training run of an experiment.
struct Run {
  std::string table;  ///< iid, dir1, iid_no_momentum, defaults_iid, defaults_dir1, monna_iid, monna_dir1
  std::string rule;   ///< name of the tables, such as nnm+trmean
  std::string attack;
  std::uint64_t seed = 0;
};

struct RunResult {
  double accuracy = 0;  ///< of the one model; of the honest members' models on average
  double worst = 0;     ///< of them the least
};

/// Trains with all members in this process, through the library's own rules and attacks. A pure function.
/// @throws holdfast::Error bad_argument for a name that the tables do not have
[[nodiscard]] RunResult simulate(Classifier const& classifier, Run const& run);

}  // namespace robustness
