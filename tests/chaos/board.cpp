#include "board.hpp"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace holdfast::chaos {

MappedBoard::MappedBoard(std::filesystem::path const& file, bool creates) : board_(nullptr) {
  int const descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC | (creates ? O_CREAT | O_EXCL : 0), 0600);
  // Zero bytes are a valid board but for one field, which its maker sets.
  bool const is_sized = descriptor >= 0 && (!creates || ::ftruncate(descriptor, sizeof(Board)) == 0);
  void* const address =
      is_sized ? ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0) : MAP_FAILED;
  int const error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (address == MAP_FAILED) throw std::system_error(error, std::generic_category(), file.string());
  board_ = static_cast<Board*>(address);
  if (creates) board_->stop_after.store(~0ULL);
}

MappedBoard::~MappedBoard() {
  ::munmap(board_, sizeof(Board));
}

}  // namespace holdfast::chaos
