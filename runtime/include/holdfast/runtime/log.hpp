#pragma once

#include <string_view>

namespace holdfast {

enum class LogLevel { trace, debug, info, warning, error, off };

/// Writes one line to standard error. Threads: any.
void log(LogLevel level, std::string_view text);
inline void log_debug(std::string_view text) {
  log(LogLevel::debug, text);
}
inline void log_info(std::string_view text) {
  log(LogLevel::info, text);
}
inline void log_warning(std::string_view text) {
  log(LogLevel::warning, text);
}
inline void log_error(std::string_view text) {
  log(LogLevel::error, text);
}

/// True when a line of this level would be written: spares the work of composing it.
[[nodiscard]] bool is_logged(LogLevel level);

/// @param name  trace, debug, info, warning, error or off
/// @throws Error bad_config, listing the levels
void set_log_level(std::string_view name);

/// Put before every line of this process from now on: "rank 2".
void set_log_prefix(std::string_view prefix);

}  // namespace holdfast
