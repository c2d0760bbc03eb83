#include "launcher.hpp"

#include <charconv>
#include <cstdlib>

#include <holdfast/runtime/error.hpp>

namespace holdfast::net {
namespace {

std::optional<int> number(Environment const& environment, char const* name) {
  auto const text = environment(name);
  if (!text) return std::nullopt;
  int value = 0;
  auto const [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || end != text->data() + text->size() || value < 0) return std::nullopt;
  return value;
}

struct Claim {
  std::string launcher;
  int rank = 0;
  int tasks = 1;
  bool spans_hosts = false;
  bool has_mpi = false;  ///< the launcher speaks to MPI libraries
};

/// What the launcher's variables say. mpirun comes first: inside a Slurm job both sets are present, and the ranks are
/// mpirun's.
std::optional<Claim> launcher_claim(Config const& config, Environment const& environment) {
  auto const get = [&](char const* name) { return number(environment, name); };
  if (auto const size = get("OMPI_COMM_WORLD_SIZE"))
    return Claim{"mpirun", get("OMPI_COMM_WORLD_RANK").value_or(0), *size,
                 get("OMPI_COMM_WORLD_LOCAL_SIZE").value_or(*size) < *size, true};
  // Batch scripts carry SLURM_NTASKS too; only a step's tasks have been started that many times.
  if (auto const size = get("SLURM_NTASKS"); size && get("SLURM_PROCID") && environment("SLURM_STEP_ID"))
    return Claim{"srun", *get("SLURM_PROCID"), get("SLURM_STEP_NUM_TASKS").value_or(*size),
                 get("SLURM_STEP_NUM_NODES").value_or(get("SLURM_NNODES").value_or(1)) > 1, true};
  if (auto const size = get("PMI_SIZE")) return Claim{"PMI", get("PMI_RANK").value_or(0), *size, false, true};
  // These two names are common; they mean members of ours only where a meeting point comes with them.
  bool const has_meeting_point = !config.rendezvous.empty() || (environment("MASTER_ADDR") && get("MASTER_PORT"));
  if (auto const size = get("WORLD_SIZE"); size && get("RANK") && has_meeting_point)
    return Claim{"torchrun", *get("RANK"), *size, get("LOCAL_WORLD_SIZE").value_or(*size) < *size, false};
  return std::nullopt;
}

[[noreturn]] void refuse_rendezvous(std::string const& text) {
  throw Error(
      Errc::bad_config,
      "rendezvous = \"" + text + "\" is neither file:///absolute/directory nor tcp://host:port (HOLDFAST_RENDEZVOUS)");
}

bool is_this_host(std::string const& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

void apply_rendezvous(Placement& placement, std::string const& text) {
  if (text.rfind("file://", 0) == 0) {
    placement.directory = text.substr(7);
    if (placement.directory.empty() || placement.directory[0] != '/') refuse_rendezvous(text);
    placement.meeting = Meeting::file;
  } else if (text.rfind("tcp://", 0) == 0) {
    auto const colon = text.rfind(':');
    placement.host = text.substr(6, colon > 6 ? colon - 6 : 0);
    placement.port = text.substr(colon + 1);
    int port = 0;
    auto const [end, error] =
        std::from_chars(placement.port.data(), placement.port.data() + placement.port.size(), port);
    if (placement.host.empty() || error != std::errc{} || end != placement.port.data() + placement.port.size() ||
        port < 1 || port > 65'535)
      refuse_rendezvous(text);
    placement.meeting = Meeting::tcp;
    if (!is_this_host(placement.host)) placement.spans_hosts = true;
  } else {
    refuse_rendezvous(text);
  }
}

/// torchrun's agent keeps its own store on MASTER_PORT, so the next port is ours.
std::optional<std::string> torchrun_rendezvous(Environment const& environment) {
  auto const address = environment("MASTER_ADDR");
  auto const port = number(environment, "MASTER_PORT");
  if (!address || !port) return std::nullopt;
  bool const is_agents = environment("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
  return "tcp://" + *address + ":" + std::to_string(*port + (is_agents ? 1 : 0));
}

}  // namespace

Environment process_environment() {
  return [](char const* name) -> std::optional<std::string> {
    char const* const value = std::getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
}

std::string find_job_id(Config const& config, Environment const& environment) {
  if (!config.job_id.empty()) return config.job_id;
  for (char const* name : {"PMIX_NAMESPACE", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"})
    if (auto const id = environment(name)) return *id;
  return "";
}

Placement find_placement(Config const& config, Environment const& environment) {
  auto const claim = launcher_claim(config, environment);
  Placement placement;
  placement.job_id = find_job_id(config, environment);
  if (claim) {
    placement.launcher = claim->launcher;
    placement.launcher_tasks = claim->tasks;
    placement.spans_hosts = claim->spans_hosts;
  }
  if (!claim && !config.rank && !config.world_size) {
    if (config.rendezvous.empty()) return placement;
    throw Error(Errc::bad_config, "rendezvous = \"" + config.rendezvous +
                                      "\" is given but nobody says how many members meet there; set HOLDFAST_RANK and "
                                      "HOLDFAST_WORLD_SIZE");
  }
  auto const rank = config.rank ? config.rank : claim ? std::optional(claim->rank) : std::nullopt;
  auto const world_size = config.world_size ? config.world_size : claim ? std::optional(claim->tasks) : std::nullopt;
  if (world_size == 1 && rank.value_or(0) == 0) return placement;
  if (!rank || !world_size || *rank >= *world_size)
    throw Error(Errc::bad_config, "rank " + (rank ? std::to_string(*rank) : "(unset)") + " of world_size " +
                                      (world_size ? std::to_string(*world_size) : "(unset)") +
                                      " makes no member; set both HOLDFAST_RANK and HOLDFAST_WORLD_SIZE");
  placement.rank = *rank;
  placement.world_size = *world_size;
  if (!config.rendezvous.empty())
    apply_rendezvous(placement, config.rendezvous);
  else if (claim && claim->has_mpi && !config.rank && !config.world_size)
    placement.meeting = Meeting::mpi;
  else if (auto const address = torchrun_rendezvous(environment))
    apply_rendezvous(placement, *address);
  else
    throw Error(Errc::bad_config, "rank " + std::to_string(placement.rank) + " of " +
                                      std::to_string(placement.world_size) +
                                      " does not know where the members meet; set HOLDFAST_RENDEZVOUS to "
                                      "file:///shared/directory or tcp://host-of-rank-0:port");
  return placement;
}

std::string explain_singletons(Placement const& placement) {
  auto const tasks = std::to_string(placement.launcher_tasks);
  std::string text = placement.launcher + " started " + tasks +
                     " processes, but MPI tells each that it is alone (0 of 1), " + "so " + tasks +
                     " separate trainings would run. ";
  if (placement.launcher == "srun")
    return text +
           "srun needs the PMI of this MPI: use srun --mpi=pmix, or mpirun inside sbatch, or set "
           "HOLDFAST_RENDEZVOUS=file:///shared/directory";
  return text +
         "mpirun and the MPI library that this program was built with are different ones: put the matching mpirun "
         "first in PATH, or set HOLDFAST_RENDEZVOUS=file:///shared/directory";
}

}  // namespace holdfast::net
