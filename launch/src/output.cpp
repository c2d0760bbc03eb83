#include "output.hpp"

#include <algorithm>
#include <cerrno>

#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace holdfast::launch {

void LinePrefixer::emit(std::string& out) {
  if (taker_ && taker_(line_)) return line_.clear();
  out += prefix_;
  out += line_;
  out += '\n';
  line_.clear();
}

void LinePrefixer::feed(std::string_view bytes, std::string& out) {
  while (!bytes.empty()) {
    std::size_t const end = bytes.find('\n');
    std::size_t const take = std::min(std::min(end, bytes.size()), kLongestLine - line_.size());
    line_ += bytes.substr(0, take);
    bytes.remove_prefix(take);
    if (!bytes.empty() && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      emit(out);
    } else if (line_.size() == kLongestLine && !bytes.empty()) {
      emit(out);
    }
  }
}

void LinePrefixer::finish(std::string& out) {
  if (!line_.empty()) emit(out);
}

Sink::Sink(int fd, bool outlives_reader) : fd_(fd), outlives_reader_(outlives_reader) {
  struct stat status {};
  is_gone_ = fstat(fd, &status) != 0;
  // A pipe that polls as writable has room for one atomic write, no more; a regular file never makes us wait.
  at_once_ = S_ISREG(status.st_mode) ? std::size_t{1} << 20 : PIPE_BUF;
}

void Sink::flush() {
  if (is_gone_) {
    drop();
    return;
  }
  if (is_empty()) taken_at_ = std::chrono::steady_clock::now();
  while (!is_empty()) {
    pollfd ready{fd_, POLLOUT, 0};
    if (poll(&ready, 1, 0) <= 0) break;
    ssize_t const count = write(fd_, pending_.data() + written_, std::min(at_once_, pending_.size() - written_));
    if (count < 0) {
      if (errno == EINTR || errno == EAGAIN) break;
      is_gone_ = true;
      drop();
      return;
    }
    written_ += static_cast<std::size_t>(count);
    taken_at_ = std::chrono::steady_clock::now();
  }
  bool const is_stuck = outlives_reader_ && !accepts() && std::chrono::steady_clock::now() - taken_at_ > kPatience;
  if (is_empty() || is_stuck) {
    drop();
  } else if (written_ >= kFull) {
    pending_.erase(0, written_);
    written_ = 0;
  }
}

void Sink::drop() {
  pending_.clear();
  written_ = 0;
}

}  // namespace holdfast::launch
