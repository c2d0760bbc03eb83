#include "capture.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptor.hpp"

namespace holdfast::launch {

Captured capture(std::vector<std::string> const& command, std::chrono::milliseconds limit) {
  constexpr std::size_t kLargestOutput = 1 << 20;
  Captured result;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return result;
  Descriptor from_child(ends[0]), to_parent(ends[1]);
  std::vector<char*> arguments;
  for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t const pid = fork();
  if (pid < 0) return result;
  if (pid == 0) {
    setpgid(0, 0);
    int const null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(null, STDERR_FILENO);
    dup2(to_parent.get(), STDOUT_FILENO);
    execvp(arguments.front(), arguments.data());
    _exit(127);
  }
  setpgid(pid, pid);
  to_parent.reset();

  auto const deadline = std::chrono::steady_clock::now() + limit;
  std::array<char, 4096> buffer;
  bool is_complete = false;
  while (!is_complete) {
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd readable{from_child.get(), POLLIN, 0};
    int const ready = poll(&readable, 1, static_cast<int>(std::clamp<long>(left, 0, 1 << 30)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) break;
    ssize_t const count = read(from_child.get(), buffer.data(), buffer.size());
    if (count > 0 && result.output.size() < kLargestOutput)
      result.output.append(buffer.data(), static_cast<std::size_t>(count));
    is_complete = count == 0;
  }
  int status = 0;
  if (is_complete) {
    Descriptor const pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd ended{pidfd.get(), POLLIN, 0};
    is_complete = poll(&ended, 1, static_cast<int>(std::clamp<long>(left, 0, 1 << 30))) == 1;
  }
  if (!is_complete) kill(-pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (is_complete && WIFEXITED(status)) result.status = WEXITSTATUS(status);
  return result;
}

std::filesystem::path find_executable(std::string const& name) {
  auto const is_program = [](std::filesystem::path const& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos)
    return is_program(name) ? std::filesystem::path(name) : std::filesystem::path();
  char const* const variable = std::getenv("PATH");
  std::string_view const path = variable != nullptr ? variable : "/usr/bin:/bin";
  for (std::size_t begin = 0; begin <= path.size();) {
    std::size_t const end = std::min(path.find(':', begin), path.size());
    auto const folder = end == begin ? std::string(".") : std::string(path.substr(begin, end - begin));
    if (auto const candidate = std::filesystem::path(folder) / name; is_program(candidate)) return candidate;
    begin = end + 1;
  }
  return {};
}

}  // namespace holdfast::launch
