#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/supervisor_port.hpp>

#include "child_process.hpp"
#include "job_policy.hpp"
#include "output.hpp"
#include "signal_queue.hpp"

namespace holdfast::launch {

class Supervisor;

/// What else happens while processes are watched. Every function is called on the supervisor's thread.
class SupervisorExtension {
 public:
  virtual ~SupervisorExtension() = default;
  /// Polled for reading; -1: none.
  [[nodiscard]] virtual int descriptor() const { return -1; }
  /// The next turn() comes at the latest then.
  [[nodiscard]] virtual std::optional<ChildProcess::Clock::time_point> next_turn() const { return {}; }
  virtual void turn(Supervisor& /*supervisor*/) {}
  virtual void on_started(Supervisor& /*supervisor*/, int /*index*/) {}
  virtual void on_ended(Supervisor& /*supervisor*/, int /*index*/, siginfo_t const& /*end*/) {}
  virtual void on_port(Supervisor& /*supervisor*/, SupervisorPort::Event const& /*event*/) {}
  /// The status of all, if it is not the processes' to say.
  [[nodiscard]] virtual std::optional<int> status() const { return {}; }
  /// A signal to forward. True: this has done it.
  virtual bool on_signal(Supervisor& /*supervisor*/, int /*signal*/) { return false; }
};

struct SupervisorOptions {
  std::string speaker;                      ///< begins each message: "holdfast run"
  std::chrono::duration<double> grace{10};  ///< from the first failure, or a forwarded stop signal, to the end of all
  std::optional<std::chrono::duration<double>> time_limit{};
  JobPolicy::Options policy{.survives = false};
  SupervisorPort* port = nullptr;  ///< borrowed, as the next two
  EventLog* events = nullptr;
  SupervisorExtension* extension = nullptr;
  /// Output that nobody takes for a while is dropped, rather than that processes wait for the reader.
  bool outlives_reader = false;
  bool is_whole_job = true;  ///< the processes are the ranks, all of them: their sum and their starts are told
};

/// Status for a program that cannot be executed, as in shells.
inline constexpr int kNotExecutableStatus = 127;
/// Status when the time limit ended the run, as of timeout(1).
inline constexpr int kTimeLimitStatus = 124;

/// Starts processes, pumps their output, passes signals on, and waits until all have ended.
///
/// When one fails, and the policy does not let the others go on, they have the grace period to end by themselves, then
/// get SIGTERM, then SIGKILL. SIGINT, SIGTERM and SIGHUP are forwarded and start the same period (a second SIGINT kills
/// at once); SIGUSR1 and SIGUSR2 are forwarded. Each process leads a group of its own, and whatever a process leaves
/// behind is killed when it ends; when the caller itself dies, the kernel sends `orphan_signal`.
/// Threads: to be used by a single-threaded process; changes its signal mask while it lives
class Supervisor {
 public:
  using Clock = ChildProcess::Clock;

  Supervisor(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options);
  ~Supervisor();
  Supervisor(Supervisor const&) = delete;
  Supervisor& operator=(Supervisor const&) = delete;

  /// @return as JobPolicy::status(); kNotExecutableStatus when a program cannot be executed
  /// @throws Error environment when the system refuses pipes or processes
  int run();

  // For the extension.
  /// A line with the speaker's name, for people.
  void say(std::string const& text);
  /// A line as it is, on standard error.
  void write_line(std::string const& line);
  void record(std::string const& event, EventLog::Fields const& fields);
  void signal_all(int signal);
  void kill_one(int index);
  /// Bytes for the standard input of a process whose plan has `input`.
  void feed(int index, std::string_view bytes);
  /// Tells all to end, and kills them after the grace period.
  void stop(int signal);
  /// Nobody is started again from now on.
  void stop_restarting() { restarts_ = false; }
  [[nodiscard]] pid_t pid_of(int index) const;
  /// Which process this one is, or was started by; -1: none.
  [[nodiscard]] int index_of(std::int64_t pid) const;
  [[nodiscard]] std::size_t processes() const { return processes_.size(); }
  [[nodiscard]] JobPolicy const& policy() const { return policy_; }

 private:
  struct Process;

  [[nodiscard]] bool all_ended() const;
  [[nodiscard]] bool all_drained() const;
  bool start(Process& process, bool as_newcomer);
  void turn();
  [[nodiscard]] int poll_timeout() const;
  void serve_port();
  void reap(Process& process);
  void heed(Process& process, JobPolicy::Decision const& decision, std::string const& reason);
  void give_grace();
  void handle_signal(int signal);
  void handle_timers();
  void end_latecomers();
  void announce_end(std::string const& verb);
  void reap_adopted();
  void end_orphans();
  void finish_output();

  SupervisorOptions const options_;
  SignalQueue signals_;
  Sink out_;
  Sink err_;
  std::vector<std::unique_ptr<Process>> processes_;
  JobPolicy policy_;
  std::optional<Clock::time_point> term_at_, kill_at_, time_limit_;
  bool was_stopped_ = false;
  bool restarts_ = true;
  std::optional<int> final_status_;
  int failures_ = 0;
  std::ptrdiff_t running_at_first_failure_ = 0;
  std::string first_failure_;
};

/// A Supervisor's whole life.
[[nodiscard]] int supervise(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options);

}  // namespace holdfast::launch
