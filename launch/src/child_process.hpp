#pragma once

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "descriptor.hpp"
#include "output.hpp"

namespace holdfast::launch {

/// One process to start and watch.
struct ProcessPlan {
  std::string label;   ///< how messages call it: "rank 3"
  std::string prefix;  ///< before each line of its output: "[3] "
  int colour = 0;      ///< of the prefix on a terminal, an SGR number; 0: none
  std::vector<std::string> command;
  std::vector<std::string> environment;           ///< all of it, NAME=VALUE
  std::vector<std::string> newcomer_environment;  ///< of the same process when it is started again
  bool passes_output_through = false;             ///< its standard output is ours, byte for byte; else prefixed lines
  bool prefixes_errors = true;                    ///< its standard error comes as prefixed lines; else it is ours
  bool is_muted = false;                          ///< its standard output is shown nowhere but in the log
  bool reads_input = false;                       ///< inherits standard input, unless that is a terminal
  std::optional<std::string> input;               ///< its standard input begins with this and stays open
  /// Takes the lines of standard error that it wants for itself: true for those.
  std::function<bool(std::string_view line)> takes_line;
  std::filesystem::path output_log;  ///< empty: none
  std::filesystem::path error_log;
  bool outlives_reader = false;  ///< goes on, and says things to nobody, when our own output is read no more
  int orphan_signal = SIGKILL;   ///< what it gets when we die; 0: nothing
};

/// One pipe from a process, and where its bytes go.
struct ChildStream {
  Descriptor pipe;
  Descriptor log;
  Sink* sink = nullptr;
  LinePrefixer lines{""};
  bool is_raw = false;           ///< bytes pass as they are
  bool outlives_reader = false;  ///< as in the plan

  /// False while its sink wants no more.
  [[nodiscard]] bool is_wanted() const { return pipe.is_open() && (sink == nullptr || sink->accepts()); }
  /// Moves what there is, within bounds. `is_late`: what does not come now is not waited for.
  void pump(bool is_late);
};

/// A process that leads a group of its own. Whatever it leaves behind in that group is killed when it has ended.
class ChildProcess {
 public:
  using Clock = std::chrono::steady_clock;

  explicit ChildProcess(ProcessPlan const& plan) : plan_(&plan) {}

  /// @param as_newcomer  started again: with the other environment, and its logs go on
  /// @return 0, or why the program cannot be executed (errno)
  /// @throws Error environment when the system refuses pipes or processes
  int start(bool as_newcomer, Sink& out, Sink& err, sigset_t const& mask);
  /// Its end, once.
  [[nodiscard]] std::optional<siginfo_t> reap();
  void signal_group(int signal) const;
  /// Bytes for its standard input, where the plan has `input`.
  void feed(std::string_view bytes);
  /// The descriptor to wait for until more of what was fed can go out; -1: none.
  [[nodiscard]] int input_to_wait_for() const { return pending_input_.empty() ? -1 : input_.get(); }
  void pump();

  [[nodiscard]] ProcessPlan const& plan() const { return *plan_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  [[nodiscard]] bool is_running() const { return pid_ >= 0 && !ended_; }
  [[nodiscard]] std::optional<Clock::time_point> ended() const { return ended_; }
  [[nodiscard]] Clock::duration lifetime() const { return *ended_ - started_; }
  [[nodiscard]] bool is_drained() const { return !output.pipe.is_open() && !errors.pipe.is_open(); }
  /// A process that left the group may keep a pipe open; its output is not waited for longer than until then.
  [[nodiscard]] std::optional<Clock::time_point> drained_by() const;

  ChildStream output;
  ChildStream errors;

 private:
  void write_input();

  ProcessPlan const* plan_;
  pid_t pid_ = -1;
  Descriptor pidfd_;
  Descriptor input_;
  std::string pending_input_;
  Clock::time_point started_{};
  std::optional<Clock::time_point> ended_;
};

/// "exited with status 3", "ended by signal 9 (Killed)".
[[nodiscard]] std::string describe_end(siginfo_t const& end);
/// As a shell's $?.
[[nodiscard]] int status_of(siginfo_t const& end);

}  // namespace holdfast::launch
