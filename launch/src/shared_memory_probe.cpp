#include "shared_memory_probe.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptor.hpp"

namespace holdfast::launch {
namespace {

constexpr std::size_t kBytes = 4096;

enum Step : int { kOpened = 0, kCannotOpen = 1, kCannotMap = 2 };

using Word = std::atomic<std::uint32_t>;

Word* map_word(int fd) {
  void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<Word*>(memory);
}

// The other process; only calls that are safe after fork.
[[noreturn]] void play_peer(char const* path) {
  int const fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) _exit(kCannotOpen);
  Word* const word = map_word(fd);
  if (word == nullptr) _exit(kCannotMap);
  word->store(1);
  syscall(SYS_futex, word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  _exit(kOpened);
}

}  // namespace

std::string probe_shared_memory() {
  Descriptor const memory(memfd_create("holdfast-doctor", MFD_CLOEXEC));
  if (!memory.is_open()) return std::string("memfd_create: ") + std::strerror(errno);
  if (ftruncate(memory.get(), kBytes) != 0) return std::string("cannot size a memfd: ") + std::strerror(errno);
  Word* const word = map_word(memory.get());
  if (word == nullptr) return std::string("cannot map a memfd: ") + std::strerror(errno);

  std::string const path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(memory.get());
  pid_t const peer = fork();
  if (peer < 0) return std::string("fork: ") + std::strerror(errno);
  if (peer == 0) play_peer(path.c_str());

  timespec const limit{2, 0};
  bool is_woken = word->load() == 1;
  if (!is_woken) {
    syscall(SYS_futex, word, FUTEX_WAIT, 0, &limit, nullptr, 0);
    is_woken = word->load() == 1;
  }
  if (!is_woken) kill(peer, SIGKILL);
  int status = 0;
  while (waitpid(peer, &status, 0) < 0 && errno == EINTR) {
  }
  munmap(word, kBytes);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotOpen) return "another process cannot open " + path;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotMap) return "another process cannot map a memfd of this one";
  if (!is_woken) return "a futex in shared memory did not wake this process within 2 s";
  return {};
}

}  // namespace holdfast::launch
