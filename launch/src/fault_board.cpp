#include "fault_board.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {

MappedBoard::MappedBoard(std::filesystem::path const& file, bool creates) : board_(nullptr) {
  int const descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC | (creates ? O_CREAT | O_EXCL : 0), 0600);
  // Zero bytes are a valid board but for one field, which its maker sets.
  bool const is_sized = descriptor >= 0 && (!creates || ::ftruncate(descriptor, sizeof(FaultBoard)) == 0);
  void* const address =
      is_sized ? ::mmap(nullptr, sizeof(FaultBoard), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0) : MAP_FAILED;
  int const error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (address == MAP_FAILED)
    throw Error(Errc::environment, "cannot share " + file.string() + ": " + std::strerror(error));
  board_ = static_cast<FaultBoard*>(address);
  if (creates) board_->stop_after.store(~0ULL);
}

MappedBoard::~MappedBoard() {
  ::munmap(board_, sizeof(FaultBoard));
}

std::int64_t monotonic_ns() {
  // steady_clock is CLOCK_MONOTONIC here, which all processes of a host share.
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace holdfast::launch
