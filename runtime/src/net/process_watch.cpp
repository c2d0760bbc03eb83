#include "process_watch.hpp"

#include <utility>

#include <sys/syscall.h>
#include <unistd.h>

#include "host.hpp"

namespace holdfast::net {

std::unique_ptr<ProcessWatch> ProcessWatch::start(asio::io_context& io, Member const& self, Member const& other,
                                                  std::uint64_t start, std::function<void()> on_end) {
  if (other.locality != self.locality || other.pid == self.pid) return nullptr;
  auto const descriptor = static_cast<int>(::syscall(SYS_pidfd_open, other.pid, 0));
  if (descriptor < 0) return nullptr;
  std::unique_ptr<ProcessWatch> watch(new ProcessWatch(io, descriptor));
  // Checked after opening: containers may share a host but not process ids, and ids are reused.
  if (process_start(other.pid) != start) return nullptr;
  watch->descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                                [on_end = std::move(on_end)](std::error_code error) {
                                  if (!error) on_end();
                                });
  return watch;
}

}  // namespace holdfast::net
