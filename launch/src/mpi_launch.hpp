#pragma once

#include <string>
#include <vector>

namespace holdfast::launch {

/// An mpirun that was found, and what it can do.
struct Mpirun {
  std::string path;
  std::string version;       ///< "5.0.11"; empty when it is not Open MPI's
  int major = 0;             ///< of Open MPI; 0 for another MPI
  bool is_of_build = false;  ///< the one that holdfast was built with
};

/// `requested` if given, else the one that holdfast was built with, else the first on PATH.
/// @throws Error not_found with the remedy
[[nodiscard]] Mpirun find_mpirun(std::string const& requested = {});

/// Flags that let survivors go on when a rank dies.
[[nodiscard]] std::vector<std::string> survivor_flags(Mpirun const& mpirun);

/// Flags that let `ranks` run here: as root, and with more ranks than cores.
[[nodiscard]] std::vector<std::string> placement_flags(Mpirun const& mpirun, int ranks);

/// Cores that this process may use.
[[nodiscard]] int usable_cores();

}  // namespace holdfast::launch
