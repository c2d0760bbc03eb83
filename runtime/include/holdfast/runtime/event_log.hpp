#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace holdfast {

/// The run's record: one JSON object a line, for people and for the report.
///
/// Each line has `t_ms` (milliseconds since the log was opened), `unix_ms`, `rank`, `event`, then the fields given.
/// Lines of the runtime: start, view, suspicion, member_left, view_failed, rounds, leave.
/// Threads: any; lines never interleave. A log without a path swallows everything.
class EventLog {
 public:
  using Value = std::variant<std::int64_t, double, bool, std::string>;
  using Fields = std::vector<std::pair<std::string, Value>>;

  /// No path: records nothing.
  EventLog();
  /// Appends to `path`, in which %r becomes the rank.
  /// @throws Error environment when the file cannot be opened for writing
  EventLog(std::string const& path, int rank);
  ~EventLog();
  EventLog(EventLog&&) noexcept;
  EventLog& operator=(EventLog&&) noexcept;

  void record(std::string_view event, Fields const& fields = {}) noexcept;
  [[nodiscard]] bool is_open() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
