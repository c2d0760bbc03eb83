#pragma once

#include <functional>
#include <optional>
#include <string>

#include <holdfast/runtime/config.hpp>

namespace holdfast::net {

/// How the members of this job meet.
enum class Meeting { alone, file, tcp, mpi };

/// Who this process is, according to its configuration and its launcher.
struct Placement {
  Meeting meeting = Meeting::alone;
  int rank = 0;
  int world_size = 1;
  std::string directory;  ///< Meeting::file
  std::string host;       ///< Meeting::tcp: where rank 0 listens
  std::string port;
  std::string job_id;
  std::string launcher;      ///< "mpirun", "srun", "torchrun"; empty: none
  int launcher_tasks = 1;    ///< how many processes the launcher says it started
  bool spans_hosts = false;  ///< members are on several hosts, or may be
};

/// Reads one environment variable.
using Environment = std::function<std::optional<std::string>(char const* name)>;
[[nodiscard]] Environment process_environment();

/// Of the configuration, else of the launcher; empty when neither says one.
[[nodiscard]] std::string find_job_id(Config const& config, Environment const& environment);

/// Decides from the configuration first, then Open MPI / PMIx / PMI, Slurm and torchrun variables; else a group of one.
/// Under Meeting::mpi rank and world_size are the launcher's claim; MPI has the last word.
/// @throws Error bad_config when rank, world size and rendezvous do not fit together
[[nodiscard]] Placement find_placement(Config const& config, Environment const& environment);

/// The message for N processes that each believe to be alone.
[[nodiscard]] std::string explain_singletons(Placement const& placement);

}  // namespace holdfast::net
