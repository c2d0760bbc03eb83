#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <mutex>

#include <nlohmann/json.hpp>

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
  std::mutex mutex;
  std::ofstream file;
  int rank = 0;
  std::chrono::steady_clock::time_point opened = std::chrono::steady_clock::now();
};

EventLog::EventLog() = default;

EventLog::EventLog(std::string const& path, int rank) {
  if (path.empty()) return;
  auto const name = substitute_rank(path, rank);
  impl_ = std::make_unique<Impl>();
  impl_->rank = rank;
  impl_->file.open(name, std::ios::app);
  if (!impl_->file)
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
    auto const text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    std::lock_guard const lock(impl_->mutex);
    impl_->file << text << '\n' << std::flush;
  } catch (std::exception const& error) {
    log_warning(std::string("an event was not recorded: ") + error.what());
  }
}

}  // namespace holdfast
