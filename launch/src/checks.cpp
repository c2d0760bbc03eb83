#include "checks.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/version.hpp>

#include "build_info.hpp"
#include "capture.hpp"
#include "descriptor.hpp"
#include "local_ranks.hpp"
#include "mpi_launch.hpp"
#include "shared_memory_probe.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr double kGibi = 1024.0 * 1024.0 * 1024.0;

std::string gibibytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GiB", bytes / kGibi);
  return text;
}

std::string first_line(std::filesystem::path const& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string field_of(std::filesystem::path const& path, std::string const& field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, field.size() + 1, field + ":") != 0) continue;
    auto const begin = line.find_first_not_of(" \t", field.size() + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return {};
}

// What a control group and its parents allow; the smallest counts.
class ControlGroups {
 public:
  ControlGroups() {
    std::ifstream file("/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
      auto const first = line.find(':');
      auto const second = line.find(':', first + 1);
      if (second == std::string::npos) continue;
      std::istringstream controllers(line.substr(first + 1, second - first - 1));
      std::string const path = line.substr(second + 1);
      if (first + 1 == second) unified_ = path;
      for (std::string controller; std::getline(controllers, controller, ',');) paths_[controller] = path;
    }
  }

  [[nodiscard]] std::optional<double> cores() const {
    std::optional<double> least;
    for (auto const& folder : unified_folders()) {
      std::istringstream words(first_line(folder / "cpu.max"));
      std::string quota;
      double period = 0;
      if (words >> quota >> period && quota != "max" && period > 0)
        keep_least(least, std::atof(quota.c_str()) / period);
    }
    for (auto const& folder : folders("cpu")) {
      double const quota = std::atof(first_line(folder / "cpu.cfs_quota_us").c_str());
      double const period = std::atof(first_line(folder / "cpu.cfs_period_us").c_str());
      if (quota > 0 && period > 0) keep_least(least, quota / period);
    }
    return least;
  }

  [[nodiscard]] std::optional<double> memory_bytes() const {
    return least_number("memory.max", "memory", "memory.limit_in_bytes");
  }
  [[nodiscard]] std::optional<double> processes() const { return least_number("pids.max", "pids", "pids.max"); }
  [[nodiscard]] std::string version() const {
    if (paths_.empty()) return unified_.empty() ? "none" : "v2";
    return "v1";
  }

 private:
  static void keep_least(std::optional<double>& least, double value) {
    least = least ? std::min(*least, value) : value;
  }

  static std::vector<std::filesystem::path> upwards(std::filesystem::path const& mount, std::string const& path) {
    std::vector<std::filesystem::path> folders;
    for (std::filesystem::path at = path; at.has_relative_path(); at = at.parent_path())
      folders.push_back(mount / at.relative_path());
    folders.push_back(mount);  // in a container the group's own path is often not visible, its mount is
    return folders;
  }
  [[nodiscard]] std::vector<std::filesystem::path> unified_folders() const {
    if (unified_.empty()) return {};
    bool const is_hybrid = std::filesystem::exists("/sys/fs/cgroup/unified");
    return upwards(is_hybrid ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup", unified_);
  }
  [[nodiscard]] std::vector<std::filesystem::path> folders(std::string const& controller) const {
    auto const found = paths_.find(controller);
    return found == paths_.end() ? std::vector<std::filesystem::path>()
                                 : upwards("/sys/fs/cgroup/" + controller, found->second);
  }
  [[nodiscard]] std::optional<double> least_number(char const* unified_file, char const* controller,
                                                   char const* file) const {
    constexpr double kUnlimited = 9e15;  // how version 1 says "no limit"
    std::optional<double> least;
    auto const look = [&](std::filesystem::path const& path) {
      double const value = std::atof(first_line(path).c_str());  // 0 for "max" and for no such file
      if (value > 0 && value < kUnlimited) keep_least(least, value);
    };
    for (auto const& folder : unified_folders()) look(folder / unified_file);
    for (auto const& folder : folders(controller)) look(folder / file);
    return least;
  }

  std::map<std::string, std::string> paths_;
  std::string unified_;
};

std::string limit_text(rlim_t limit) {
  return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
}

Check check_limit(std::string const& name, int resource, rlim_t enough, std::string const& remedy) {
  rlimit limit{};
  getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  bool const is_enough = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= enough;
  return {"limits", name, is_enough ? Verdict::good : Verdict::warning, limit_text(limit.rlim_cur),
          is_enough ? "" : remedy};
}

// Connects to itself over 127.0.0.1; empty if it worked.
std::string probe_loopback() {
  Descriptor const listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.get(), generic, size) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), generic, &size) != 0)
    return std::string("cannot listen on 127.0.0.1: ") + std::strerror(errno);
  Descriptor const client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval const limit{2, 0};
  setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(client.get(), generic, size) != 0)
    return std::string("cannot connect to 127.0.0.1: ") + std::strerror(errno);
  return {};
}

Check check_mpi() {
  Check check{"fabrics", "mpi", Verdict::good, "", ""};
  if (!build_info::kWithMpi) {
    check.verdict = Verdict::fact;
    check.value = "not in this build";
    check.remedy = "configure with -DHOLDFAST_WITH_MPI=ON to have it";
    return check;
  }
  try {
    auto const mpirun = find_mpirun();
    check.value = (mpirun.version.empty() ? "not Open MPI" : "Open MPI " + mpirun.version) + ", " + mpirun.path;
    auto const info = std::filesystem::path(mpirun.path).parent_path() / "ompi_info";
    constexpr std::chrono::seconds kInfoLimit{20};
    auto const answer = capture({info.string()}, kInfoLimit).output;
    bool const has_ulfm = answer.find("Fault Tolerance support: yes") != std::string::npos;
    check.value += has_ulfm ? ", ULFM" : ", without ULFM";
    auto const on_path = find_executable("mpirun");
    check.value += on_path.empty() ? ", no mpirun on PATH" : ", on PATH: " + on_path.string();
    if (!mpirun.is_of_build) {
      check.verdict = Verdict::warning;
      check.remedy = "this is not the mpirun of the build (" + std::string(build_info::kMpirun) +
                     "); programs started by another MPI see one rank each";
    } else if (!has_ulfm) {
      check.verdict = Verdict::warning;
      check.remedy = "survivors go on only with ULFM: use Open MPI 5 (launch/bootstrap installs one)";
    } else if (!on_path.empty() && !std::filesystem::equivalent(on_path, mpirun.path)) {
      check.verdict = Verdict::warning;
      check.remedy = "the mpirun on PATH is another one; use `holdfast run --mpi`, or put " +
                     std::filesystem::path(mpirun.path).parent_path().string() + " first on PATH";
    }
  } catch (Error const& error) {
    check.verdict = Verdict::warning;
    check.value = "in this build, but no mpirun";
    check.remedy = "run launch/bootstrap or put mpirun on PATH; the shm fabric needs none";
  }
  return check;
}

std::string on_off(bool is_on) {
  return is_on ? "yes" : "no";
}

}  // namespace

std::vector<Check> check_build() {
  std::string const torch = build_info::kTorchVersion;
  std::string const sanitizer = build_info::kSanitizer;
  std::vector<Check> checks{
      {"build", "version", Verdict::fact, version(), ""},
      {"build", "compiler", Verdict::fact, build_info::kCompiler, ""},
      {"build", "type", Verdict::fact, build_info::kBuildType, ""},
      {"build", "flags", Verdict::fact, build_info::kFlags, ""},
      {"build", "optim (libtorch)", Verdict::fact,
       build_info::kWithTorch ? "yes, libtorch " + torch + " in " + build_info::kTorchRoot : "no", ""},
      {"build", "mpi", Verdict::fact, on_off(build_info::kWithMpi), ""},
      {"build", "cuda", Verdict::fact, on_off(build_info::kWithCuda), ""},
      {"build", "nccl", Verdict::fact, on_off(build_info::kWithNccl), ""},
  };
  if (!sanitizer.empty())
    checks.push_back({"build", "sanitizer", Verdict::warning, sanitizer, "for tests; build a release for speed"});
  return checks;
}

std::vector<Check> check_fabrics() {
  std::vector<Check> checks{{"fabrics", "loopback", Verdict::good, "threads of one process", ""}};
  auto const trouble = probe_shared_memory();
  checks.push_back({"fabrics", "shm", trouble.empty() ? Verdict::good : Verdict::problem,
                    trouble.empty() ? "memfd, /proc/PID/fd and futex work between processes" : trouble,
                    trouble.empty() ? ""
                                    : "mount /proc without hidepid, run all ranks as one user, and allow memfd_create "
                                      "in the container's seccomp profile; or use --fabric tcp"});
  checks.push_back({"fabrics", "tcp", Verdict::good, "sockets between processes, on one host or several", ""});
  checks.push_back(check_mpi());
  return checks;
}

std::vector<Check> check_machine() {
  std::vector<Check> checks;
  utsname kernel{};
  uname(&kernel);
  checks.push_back({"machine", "kernel", Verdict::fact, std::string(kernel.sysname) + " " + kernel.release, ""});
  Descriptor const pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  checks.push_back({"machine", "pidfd", pidfd.is_open() ? Verdict::good : Verdict::problem,
                    pidfd.is_open() ? "deaths of processes are seen at once" : std::strerror(errno),
                    pidfd.is_open() ? "" : "Linux 5.3 or newer is needed; in a container, allow pidfd_open"});

  ControlGroups const groups;
  auto const cores = usable_cores();
  auto const quota = groups.cores();
  std::string cores_text = std::to_string(cores) + " usable of " + std::to_string(sysconf(_SC_NPROCESSORS_ONLN));
  bool const is_throttled = quota && *quota < cores;
  if (quota) {
    char text[48];
    std::snprintf(text, sizeof text, ", cgroup quota %.2f", *quota);
    cores_text += text;
  }
  checks.push_back({"machine", "cores", is_throttled ? Verdict::warning : Verdict::fact, cores_text,
                    is_throttled ? "the quota stops ranks in the middle of an exchange; ask for whole cores, or start "
                                   "fewer ranks"
                                 : ""});
  double const total = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  double const available = std::atof(field_of("/proc/meminfo", "MemAvailable").c_str()) * 1024;
  auto const memory_limit = groups.memory_bytes();
  checks.push_back({"machine", "memory", Verdict::fact,
                    gibibytes(available) + " available of " + gibibytes(total) +
                        (memory_limit ? ", cgroup limit " + gibibytes(*memory_limit) : ""),
                    ""});
  auto const processes = groups.processes();
  checks.push_back({"machine", "cgroup", Verdict::fact,
                    groups.version() +
                        (processes ? ", at most " + std::to_string(static_cast<long>(*processes)) + " processes" : ""),
                    ""});
  checks.push_back({"machine", "huge pages", Verdict::fact,
                    "reserved " + field_of("/proc/meminfo", "HugePages_Total") +
                        "; transparent: " + first_line("/sys/kernel/mm/transparent_hugepage/enabled") +
                        "; in shared memory: " + first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
                    ""});
  bool const is_strict = first_line("/proc/sys/vm/overcommit_memory") == "2";
  checks.push_back({"machine", "overcommit", is_strict ? Verdict::warning : Verdict::good,
                    is_strict ? "strict (vm.overcommit_memory=2)" : "address space may be reserved freely",
                    is_strict ? "the arena reserves address space it may never use: lower HOLDFAST_ARENA_BYTES or set "
                                "vm.overcommit_memory=0"
                              : ""});
  auto const loopback = probe_loopback();
  checks.push_back({"machine", "127.0.0.1", loopback.empty() ? Verdict::good : Verdict::problem,
                    loopback.empty() ? "listens and connects" : loopback,
                    loopback.empty() ? "" : "bring the loopback interface up: ip link set lo up"});
  try {
    TemporaryFolder const folder;
    checks.push_back({"machine", "temporary folder", Verdict::good, folder.path().parent_path().string(), ""});
  } catch (Error const& error) {
    checks.push_back({"machine", "temporary folder", Verdict::problem, "cannot be written",
                      "set TMPDIR to a folder that can be written"});
  }
  struct statvfs shm {};
  if (build_info::kWithMpi && statvfs("/dev/shm", &shm) == 0) {
    double const bytes = static_cast<double>(shm.f_bavail) * static_cast<double>(shm.f_frsize);
    bool const is_small = bytes < kGibi / 4;
    checks.push_back({"machine", "/dev/shm", is_small ? Verdict::warning : Verdict::fact, gibibytes(bytes) + " free",
                      is_small
                          ? "Open MPI keeps its segments there: remove old sm_segment.* files, or give the container "
                            "more (--shm-size)"
                          : ""});
  }

  constexpr rlim_t kFiles = 1024, kProcesses = 1024;
  checks.push_back(check_limit("open files", RLIMIT_NOFILE, kFiles, "raise it: ulimit -n 4096"));
  checks.push_back(check_limit("processes", RLIMIT_NPROC, kProcesses, "raise it: ulimit -u 4096"));
  checks.push_back(check_limit("address space", RLIMIT_AS, RLIM_INFINITY,
                               "ulimit -v unlimited, or HOLDFAST_ARENA_BYTES well below the limit"));
  checks.push_back(check_limit("file size", RLIMIT_FSIZE, RLIM_INFINITY, "ulimit -f unlimited: it also bounds memfds"));
  return checks;
}

std::vector<Check> check_settings() {
  std::vector<Check> checks;
  auto const table = Config::documentation();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string const text = *entry;
    std::string const variable = text.substr(0, text.find('='));
    if (variable.compare(0, 9, "HOLDFAST_") != 0) continue;
    bool const is_key = table.find("`" + variable + "`") != std::string::npos;
    checks.push_back({"settings", variable, Verdict::fact,
                      text.substr(std::min(variable.size() + 1, text.size())) + " (from the environment)",
                      is_key || variable == "HOLDFAST_CONFIG" ? "" : "not a setting of training programs"});
  }
  try {
    auto const config = Config::from_environment();
    std::istringstream lines(config.print()), defaults(Config().print());
    for (std::string line, standard; std::getline(lines, line) && std::getline(defaults, standard);) {
      if (line == standard) continue;
      auto const equals = line.find(" = ");
      std::string variable = "HOLDFAST_";
      for (char const letter : line.substr(0, equals))
        variable += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
      char const* const value = std::getenv(variable.c_str());
      if (value == nullptr || *value == '\0')
        checks.push_back({"settings", variable, Verdict::fact,
                          line.substr(equals + 3) + " (from " + std::getenv("HOLDFAST_CONFIG") + ")", ""});
    }
    checks.push_back({"settings", "configuration", Verdict::good, "valid", ""});
  } catch (Error const& error) {
    checks.push_back({"settings", "configuration", Verdict::problem, error.what(), "correct or unset it"});
  }
  return checks;
}

}  // namespace holdfast::launch
