#include <array>
#include <mutex>
#include <string>
#include <utility>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast {
namespace {

constexpr std::array<std::pair<std::string_view, LogLevel>, 6> kLevels{{{"trace", LogLevel::trace},
                                                                        {"debug", LogLevel::debug},
                                                                        {"info", LogLevel::info},
                                                                        {"warning", LogLevel::warning},
                                                                        {"error", LogLevel::error},
                                                                        {"off", LogLevel::off}}};

spdlog::level::level_enum native(LogLevel level) {
  switch (level) {
    case LogLevel::trace:
      return spdlog::level::trace;
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
    case LogLevel::off:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

/// The logger of the process. The prefix is kept apart from the pattern because a pattern change is not thread-safe.
struct Logger {
  spdlog::logger out{"holdfast", std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  std::mutex mutex;
  std::string prefix;

  Logger() { out.set_pattern("[%H:%M:%S.%e] holdfast %v"); }
};

// Leaked on purpose: threads that outlive main may still log.
Logger& logger() {
  static auto* const instance = new Logger;  // NOLINT(cppcoreguidelines-owning-memory): see above
  return *instance;
}

}  // namespace

void log(LogLevel level, std::string_view text) {
  auto& target = logger();
  if (!target.out.should_log(native(level))) return;
  std::string prefix;
  {
    std::lock_guard const lock(target.mutex);
    prefix = target.prefix;
  }
  char const* const mark = level == LogLevel::error ? "error: " : level == LogLevel::warning ? "warning: " : "";
  target.out.log(native(level), "{}{}{}", prefix, mark, text);
}

bool is_logged(LogLevel level) {
  return logger().out.should_log(native(level));
}

void set_log_level(std::string_view name) {
  std::string valid;
  for (auto const& [text, level] : kLevels) {
    if (text == name) {
      logger().out.set_level(native(level));
      return;
    }
    valid += (valid.empty() ? "" : ", ") + std::string(text);
  }
  throw Error(Errc::bad_config, "log_level = \"" + std::string(name) + "\" is not one of: " + valid);
}

void set_log_prefix(std::string_view prefix) {
  std::lock_guard const lock(logger().mutex);
  logger().prefix = prefix.empty() ? "" : std::string(prefix) + ": ";
}

}  // namespace holdfast
