#pragma once

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::launch {

/// One process to start and watch.
struct ProcessPlan {
  std::string label;   ///< how messages call it: "rank 3"
  std::string prefix;  ///< before each line of its output: "[3] "
  int colour = 0;      ///< of the prefix on a terminal, an SGR number; 0: none
  std::vector<std::string> command;
  std::vector<std::string> environment;  ///< all of it, NAME=VALUE
  bool passes_output_through = false;    ///< its standard output is ours, byte for byte; else prefixed lines
  bool prefixes_errors = true;           ///< its standard error comes as prefixed lines; else it is ours
  bool is_muted = false;                 ///< its standard output is shown nowhere but in the log
  bool reads_input = false;              ///< inherits standard input, unless that is a terminal
  std::filesystem::path output_log;      ///< empty: none
  std::filesystem::path error_log;
  int orphan_signal = SIGKILL;  ///< what it gets when we die
};

struct SupervisorOptions {
  std::string speaker;                      ///< begins each message: "holdfast run"
  std::chrono::duration<double> grace{10};  ///< from the first failure, or a forwarded stop signal, to the end of all
  std::optional<std::chrono::duration<double>> time_limit;
};

/// Status for a program that cannot be executed, as in shells.
inline constexpr int kNotExecutableStatus = 127;
/// Status for "checkpointed, please requeue".
inline constexpr int kRequeueStatus = 75;
/// Status when the time limit ended the run, as of timeout(1).
inline constexpr int kTimeLimitStatus = 124;

/// Starts the processes, pumps their output, passes signals on, and waits until all have ended.
///
/// When one fails, the others have the grace period to end by themselves, then get SIGTERM, then SIGKILL. SIGINT,
/// SIGTERM and SIGHUP are forwarded and start the same period (a second SIGINT kills at once); SIGUSR1 and SIGUSR2 are
/// forwarded. Each process leads a group of its own, and whatever a process leaves behind is killed when it ends; when
/// the caller itself dies, the kernel sends `orphan_signal`.
///
/// @return 0 when all ended with 0; else that of the first that failed, 128 + signal for signals; kRequeueStatus only
///         when all that failed ended with it; kNotExecutableStatus when a program cannot be executed
/// @throws Error environment when the system refuses pipes or processes
/// Threads: to be called by a single-threaded process; changes its signal mask while it runs
[[nodiscard]] int supervise(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options);

}  // namespace holdfast::launch
