#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace holdfast::launch {

/// Cuts a stream of bytes into lines and puts a prefix before each.
///
/// A line longer than kLongestLine is broken, and a last line without an end gets one, so that lines of several streams
/// never run into each other. All other bytes pass unchanged.
class LinePrefixer {
 public:
  static constexpr std::size_t kLongestLine = 64 * 1024;

  /// Takes a line for itself, instead of the output: true for those that it wants.
  using Taker = std::function<bool(std::string_view line)>;

  explicit LinePrefixer(std::string prefix, Taker taker = {}) : prefix_(std::move(prefix)), taker_(std::move(taker)) {}

  /// Appends the complete lines to `out` and keeps the rest.
  void feed(std::string_view bytes, std::string& out);
  /// Appends what is left as a line.
  void finish(std::string& out);

 private:
  void emit(std::string& out);

  std::string prefix_;
  Taker taker_;
  std::string line_;
};

/// Bytes on their way to a borrowed descriptor that may be slow (a pager, a stopped terminal) or gone.
///
/// Never blocks for long: it writes no more at once than a ready descriptor takes. The descriptor stays in blocking
/// mode, because its open file is shared with the shell and other programs.
class Sink {
 public:
  /// @param outlives_reader  what is not taken for kPatience is dropped once much is pending
  explicit Sink(int fd, bool outlives_reader = false);
  static constexpr std::chrono::seconds kPatience{3};

  /// Where new bytes go; write them with flush().
  [[nodiscard]] std::string& pending() { return pending_; }
  /// False while so much is pending that sources should wait.
  [[nodiscard]] bool accepts() const { return pending_.size() - written_ < kFull; }
  [[nodiscard]] bool is_empty() const { return written_ == pending_.size(); }
  [[nodiscard]] int fd() const { return fd_; }
  /// True once nobody can read any more.
  [[nodiscard]] bool is_gone() const { return is_gone_; }

  /// Writes while the descriptor is ready. When the reader is gone everything is dropped, now and later.
  void flush();
  void drop();

 private:
  static constexpr std::size_t kFull = 1 << 20;

  int fd_;
  bool outlives_reader_;
  std::chrono::steady_clock::time_point taken_at_{};  ///< when something went out last, or nothing was pending
  std::size_t at_once_;
  std::string pending_;
  std::size_t written_ = 0;
  bool is_gone_ = false;
};

}  // namespace holdfast::launch
