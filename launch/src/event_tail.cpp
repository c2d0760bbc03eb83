#include "event_tail.hpp"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {

EventTail::EventTail(std::filesystem::path const& file)
    : file_(::open(file.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0644)) {
  if (!file_.is_open())
    throw Error(Errc::environment, "cannot read the event log " + file.string() + ": " + std::strerror(errno));
}

std::vector<std::string> EventTail::take() {
  std::array<char, 16'384> bytes;
  std::vector<std::string> lines;
  for (ssize_t count = 0; (count = ::read(file_.get(), bytes.data(), bytes.size())) > 0;) {
    rest_.append(bytes.data(), static_cast<std::size_t>(count));
    for (auto end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n')) {
      lines.push_back(rest_.substr(0, end));
      rest_.erase(0, end + 1);
    }
  }
  return lines;
}

}  // namespace holdfast::launch
