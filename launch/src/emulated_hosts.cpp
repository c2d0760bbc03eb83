#include "emulated_hosts.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "capture.hpp"

namespace holdfast::launch {
namespace {

using namespace std::chrono_literals;

constexpr auto kCommandLimit = 5s;
constexpr char const* kNeeds =
    "; emulated hosts take root or user namespaces (sysctl kernel.unprivileged_userns_clone "
    "and user.max_user_namespaces), and iproute2";

[[noreturn]] void refuse(std::string const& what) {
  throw Error(Errc::environment, what + kNeeds);
}

void run(std::vector<std::string> const& command) {
  if (capture(command, kCommandLimit).status == 0) return;
  std::string line;
  for (auto const& word : command) line += (line.empty() ? "" : " ") + word;
  refuse("`" + line + "` failed");
}

void write_file(char const* path, std::string const& text) {
  std::ofstream file(path);
  file << text << std::flush;
  if (!file) refuse(std::string("cannot write ") + path);
}

/// This process into a network of its own; where it is not root, into a user namespace in which it is.
void become_switch() {
  auto const user = ::geteuid();
  auto const group = ::getegid();
  if (::unshare(CLONE_NEWNET) == 0) return;
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
    refuse(std::string("cannot make a network namespace (") + std::strerror(errno) + ")");
  write_file("/proc/self/setgroups", "deny");
  write_file("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
  write_file("/proc/self/gid_map", "0 " + std::to_string(group) + " 1");
}

/// A process that does nothing but hold a network namespace open.
pid_t start_keeper() {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) refuse("cannot make a pipe");
  auto const parent = ::getpid();
  auto const pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool const is_made = ::getppid() == parent && ::unshare(CLONE_NEWNET) == 0 && ::write(ready[1], "", 1) == 1;
    while (is_made) ::pause();
    ::_exit(1);
  }
  ::close(ready[1]);
  char byte;
  bool const is_ready = pid > 0 && ::read(ready[0], &byte, 1) == 1;
  ::close(ready[0]);
  if (!is_ready) refuse(std::string("cannot make the network of an emulated host (") + std::strerror(errno) + ")");
  return pid;
}

}  // namespace

EmulatedHosts::EmulatedHosts(int hosts) : ip_(find_executable("ip").string()) {
  if (ip_.empty() && ::access("/usr/sbin/ip", X_OK) == 0) ip_ = "/usr/sbin/ip";
  if (ip_.empty()) refuse("the program `ip` is not there");
  become_switch();
  run({ip_, "link", "set", "lo", "up"});
  run({ip_, "link", "add", "holdfast", "type", "bridge"});
  run({ip_, "link", "set", "holdfast", "up"});
  int const own = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (own < 0) refuse("cannot open /proc/self/ns/net");
  for (int host = 0; host < hosts; ++host) {
    auto const pid = start_keeper();
    auto const path = "/proc/" + std::to_string(pid) + "/ns/net";
    keepers_.push_back({pid, ::open(path.c_str(), O_RDONLY | O_CLOEXEC)});
    auto const port = "h" + std::to_string(host);
    run({ip_, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", std::to_string(pid)});
    run({ip_, "link", "set", port, "master", "holdfast"});
    run({ip_, "link", "set", port, "up"});
    // The other end is only seen from there.
    if (!enter(host))
      refuse(std::string("cannot enter the network of an emulated host (") + std::strerror(errno) + ")");
    run({ip_, "address", "add", address(host) + "/24", "dev", "eth0"});
    run({ip_, "link", "set", "eth0", "up"});
    run({ip_, "link", "set", "lo", "up"});
    if (::setns(own, CLONE_NEWNET) != 0) refuse("cannot return from the network of an emulated host");
  }
  ::close(own);
}

EmulatedHosts::~EmulatedHosts() {
  for (auto const& keeper : keepers_) {
    if (keeper.network >= 0) ::close(keeper.network);
    ::kill(keeper.pid, SIGKILL);
    ::waitpid(keeper.pid, nullptr, 0);
  }
}

std::string EmulatedHosts::address(int host) const {
  return "10.77.1." + std::to_string(host + 1);
}

bool EmulatedHosts::enter(int host) const {
  return ::setns(keepers_[static_cast<std::size_t>(host)].network, CLONE_NEWNET) == 0;
}

void EmulatedHosts::set_cut(int host, bool is_cut) {
  run({ip_, "link", "set", "h" + std::to_string(host), is_cut ? "down" : "up"});
}

}  // namespace holdfast::launch
