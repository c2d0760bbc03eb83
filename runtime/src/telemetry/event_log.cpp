#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast {
namespace {

std::string substitute_rank(std::string path, int rank) {
  for (auto at = path.find("%r"); at != std::string::npos; at = path.find("%r", at))
    path.replace(at, 2, std::to_string(rank));
  return path;
}

template <typename Duration>
std::int64_t milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

}  // namespace

struct EventLog::Impl {
  ~Impl() {
    if (file >= 0) ::close(file);
  }

  int file = -1;
  int rank = 0;
  std::atomic<bool> has_failed{false};
  std::chrono::steady_clock::time_point opened = std::chrono::steady_clock::now();
};

EventLog::EventLog() = default;

EventLog::EventLog(std::string const& path, int rank) {
  if (path.empty()) return;
  auto const name = substitute_rank(path, rank);
  impl_ = std::make_unique<Impl>();
  impl_->rank = rank;
  impl_->file = ::open(name.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (impl_->file < 0)
    throw Error(Errc::environment, "cannot write the event log " + name + " (" + std::strerror(errno) +
                                       "); set HOLDFAST_EVENT_LOG to a path in an existing, writable folder");
}

EventLog::~EventLog() = default;
EventLog::EventLog(EventLog&&) noexcept = default;
EventLog& EventLog::operator=(EventLog&&) noexcept = default;

bool EventLog::is_open() const noexcept {
  return impl_ != nullptr;
}

void EventLog::record(std::string_view event, Fields const& fields) noexcept {
  if (!impl_) return;
  try {
    nlohmann::ordered_json line;
    line["t_ms"] = milliseconds(std::chrono::steady_clock::now() - impl_->opened);
    line["unix_ms"] = milliseconds(std::chrono::system_clock::now().time_since_epoch());
    line["rank"] = impl_->rank;
    line["event"] = event;
    for (auto const& [key, value] : fields) std::visit([&, &key = key](auto const& v) { line[key] = v; }, value);
    // Text from peers may not be UTF-8: replaced rather than refused, a log must not fail.
    auto const text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
    // Whole, in one write that the kernel puts at the end: several processes may share a file.
    if (::write(impl_->file, text.data(), text.size()) != static_cast<ssize_t>(text.size()) &&
        !impl_->has_failed.exchange(true))
      log_warning(std::string("events are lost: the event log cannot be written (") + std::strerror(errno) + ")");
  } catch (std::exception const& error) {
    log_warning(std::string("an event was not recorded: ") + error.what());
  }
}

}  // namespace holdfast
