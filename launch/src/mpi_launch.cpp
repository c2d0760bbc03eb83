#include "mpi_launch.hpp"

#include <chrono>
#include <cstdlib>

#include <sched.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "build_info.hpp"
#include "capture.hpp"

namespace holdfast::launch {

Mpirun find_mpirun(std::string const& requested) {
  Mpirun mpirun;
  std::string const built_with = build_info::kMpirun;
  if (!requested.empty()) {
    mpirun.path = find_executable(requested).string();
    if (mpirun.path.empty()) throw Error(Errc::not_found, "--mpirun: '" + requested + "' is not an executable file");
  } else {
    if (!built_with.empty()) mpirun.path = find_executable(built_with).string();
    if (mpirun.path.empty()) mpirun.path = find_executable("mpirun").string();
  }
  if (mpirun.path.empty())
    throw Error(Errc::not_found,
                "no mpirun: run launch/bootstrap, or put mpirun on PATH, or name it by --mpirun /path/to/mpirun");
  mpirun.is_of_build = mpirun.path == built_with;

  constexpr std::chrono::seconds kVersionLimit{10};
  auto const answer = capture({mpirun.path, "--version"}, kVersionLimit).output;
  for (std::string const mark : {"(Open MPI) ", "(OpenRTE) "}) {
    auto const at = answer.find(mark);
    if (at == std::string::npos) continue;
    auto const begin = at + mark.size();
    mpirun.version = answer.substr(begin, answer.find_first_of(" \n", begin) - begin);
    mpirun.major = std::atoi(mpirun.version.c_str());
  }
  return mpirun;
}

std::vector<std::string> survivor_flags(Mpirun const& mpirun) {
  // han, the hierarchical module, can hang over several hosts once a rank is gone.
  // btl_tcp_flags 9 (send and receive only): the TCP receive scheduler of 5.0 can loop for ever after a peer's death.
  if (mpirun.major >= 5) return {"--with-ft", "ulfm", "--mca", "coll", "^han", "--mca", "btl_tcp_flags", "9"};
  if (mpirun.major == 4) return {"--enable-recovery"};
  return {};
}

std::vector<std::string> placement_flags(Mpirun const& mpirun, int ranks) {
  if (mpirun.major == 0) return {};
  std::vector<std::string> flags;
  if (geteuid() == 0) flags.push_back("--allow-run-as-root");
  if (ranks > usable_cores()) flags.insert(flags.end(), {"--oversubscribe", "--mca", "mpi_yield_when_idle", "1"});
  return flags;
}

int usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

}  // namespace holdfast::launch
