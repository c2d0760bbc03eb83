#include "fault_job.hpp"

#include <csignal>
#include <cstdlib>
#include <utility>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "mpi_launch.hpp"

namespace holdfast::launch {
namespace {

using namespace std::chrono_literals;

constexpr auto kEndLimit = 20s;
constexpr auto kMpirunLimit = 5s;

}  // namespace

FaultJob::FaultJob(FaultJobOptions options)
    : options_(std::move(options)),
      board_file_(folder_.path() / "board"),
      board_(board_file_, true),
      job_(options_.ranks) {
  // Without majorities somebody has to end the silent and to say that they ended, as `holdfast run` does.
  if (options_.quorum == "certified") supervisor_.emplace(folder_.path() / "supervisor", true);
  if (options_.plan.fabric == "mpi") {
    start_by_mpirun();
  } else {
    for (int rank = 0; rank < options_.ranks; ++rank) start(rank, host_of(rank));
  }
}

FaultJob::~FaultJob() {
  // Ranks are mpirun's children; where it does not end them with itself, they are ended here first.
  if (options_.plan.fabric == "mpi")
    for (int rank = 0; rank < options_.ranks; ++rank)
      if (member(rank).ended.load() == 0) strike(rank, SIGKILL);
  for (auto const pid : pids_) end(pid);
}

int FaultJob::host_of(int seat) const {
  return options_.hosts == nullptr ? 0 : seat * options_.hosts->size() / options_.ranks;
}

void FaultJob::join(int seat, int neighbour) {
  start(seat, host_of(neighbour), {{"HOLDFAST_JOIN", job_.rendezvous()}});
}

void FaultJob::strike(int seat, int signal) {
  auto const pid = static_cast<pid_t>(member(seat).pid.load());
  if (pid > 1) ::kill(pid, signal);
}

bool FaultJob::finish(std::vector<int> const& seats) {
  std::uint64_t last = 0;
  for (int const seat : seats) last = std::max(last, member(seat).last_round.load());
  board_->stop_after.store(last + 4);
  return wait_for(seats, kEndLimit, [](auto const& one) { return one.ended.load() == 1; });
}

void FaultJob::idle(std::chrono::nanoseconds time) {
  static_cast<void>(wait_for({0}, time, [](auto const&) { return false; }));
}

void FaultJob::serve() {
  if (supervisor_) static_cast<void>(supervisor_->serve());
}

std::vector<std::string> FaultJob::command(std::string const& seat) const {
  std::error_code error;
  auto const self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  return {self,
          "bench-fault-member",
          board_file_.string(),
          seat,
          options_.plan.fabric,
          std::to_string(options_.plan.bytes),
          std::to_string(options_.plan.state_bytes)};
}

std::map<std::string, std::string> FaultJob::settings() const {
  char const* const log_level = std::getenv("HOLDFAST_LOG_LEVEL");
  return {{"HOLDFAST_SUPERVISOR", supervisor_ ? supervisor_->address() : ""},
          {"HOLDFAST_ON_LOSS", "shrink"},
          {"HOLDFAST_HEARTBEAT_TIMEOUT_MS", "500"},
          {"HOLDFAST_QUORUM", options_.quorum},
          {"HOLDFAST_JOIN_RATE", std::to_string(options_.join_rate)},
          {"HOLDFAST_LOG_LEVEL", log_level != nullptr ? log_level : "off"},
          {"OMP_NUM_THREADS", "1"}};
}

void FaultJob::start(int seat, int host, std::map<std::string, std::string> more) {
  if (options_.hosts != nullptr) more["HOLDFAST_BIND_ADDRESS"] = options_.hosts->address(host);
  more.merge(settings());
  auto const plan = job_.plan(seat, command(std::to_string(seat)), std::move(more));
  launch(plan.command, plan.environment, false, host);
}

void FaultJob::start_by_mpirun() {
  auto const mpirun = find_mpirun();
  std::vector<std::string> words{mpirun.path};
  auto const append = [&](std::vector<std::string> const& more) {
    words.insert(words.end(), more.begin(), more.end());
  };
  append(survivor_flags(mpirun));
  append(placement_flags(mpirun, options_.ranks));
  // A killed job leaves the segments of the transport behind: here they go with the folder.
  if (mpirun.major >= 5) append({"--mca", "btl_sm_backing_directory", folder_.path().string()});
  append({"-n", std::to_string(options_.ranks)});
  for (auto const& [name, value] : settings()) append({"-x", name});
  append(command(std::string(kSeatOfMpi)));
  // mpirun reports the rank that was killed on purpose.
  launch(words, environment_with(settings(), {"HOLDFAST_RANK", "HOLDFAST_WORLD_SIZE", "HOLDFAST_RENDEZVOUS"}), true, 0);
}

void FaultJob::launch(std::vector<std::string> const& command, std::vector<std::string> const& variables, bool is_mute,
                      int host) {
  std::vector<char*> arguments;
  std::vector<char*> environment;
  for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  for (auto const& word : variables) environment.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  environment.push_back(nullptr);
  auto const pid = ::fork();
  if (pid < 0) throw Error(Errc::environment, "cannot start a process (limit of processes? see `ulimit -u`)");
  if (pid == 0) {
    if (options_.hosts != nullptr && !options_.hosts->enter(host)) ::_exit(127);
    if (int const nowhere = is_mute ? ::open("/dev/null", O_WRONLY) : -1; nowhere >= 0) {
      ::dup2(nowhere, STDOUT_FILENO);
      ::dup2(nowhere, STDERR_FILENO);
    }
    ::execve(arguments.front(), arguments.data(), environment.data());
    ::_exit(127);
  }
  pids_.push_back(pid);
}

/// mpirun removes its files if it may end by itself, which it does once its ranks have.
void FaultJob::end(pid_t pid) const {
  auto const until = std::chrono::steady_clock::now() + (options_.plan.fabric == "mpi" ? kMpirunLimit : 0s);
  while (::waitpid(pid, nullptr, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() >= until) ::kill(pid, SIGKILL);
    std::this_thread::sleep_for(1ms);
  }
}

}  // namespace holdfast::launch
