#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/runtime/supervisor_port.hpp>

#include "agent_messages.hpp"
#include "event_tail.hpp"
#include "local_ranks.hpp"
#include "supervisor.hpp"

namespace holdfast::launch {

/// Lines from a descriptor, without ever waiting longer than asked to.
class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}
  /// The next line; nothing when none came in time, or none will come any more.
  [[nodiscard]] std::optional<std::string> next(std::chrono::milliseconds limit);
  [[nodiscard]] bool is_at_end() const { return is_at_end_; }
  [[nodiscard]] int fd() const { return is_at_end_ ? -1 : fd_; }

 private:
  int fd_;
  bool is_at_end_ = false;
  std::string buffer_;
};

/// Starts, watches and certifies the ranks of one host for a `holdfast run` elsewhere.
///
/// When the launcher is gone it goes on without it: its ranks decide with the others whether they can.
class Agent : public SupervisorExtension {
 public:
  /// Waits for the job on standard input.
  /// @throws UsageError when there is none, Error environment
  Agent();
  int run();

  [[nodiscard]] int descriptor() const override { return launcher_.fd(); }
  [[nodiscard]] std::optional<ChildProcess::Clock::time_point> next_turn() const override;
  void turn(Supervisor& supervisor) override;
  void on_started(Supervisor& supervisor, int index) override;
  void on_ended(Supervisor& supervisor, int index, siginfo_t const& end) override;
  void on_port(Supervisor& supervisor, SupervisorPort::Event const& event) override;

 private:
  [[nodiscard]] std::map<std::string, std::string> variables() const;
  [[nodiscard]] std::vector<ProcessPlan> make_plans(std::map<std::string, std::string> const& variables) const;
  void prepare();
  void heed(Supervisor& supervisor, AgentCommand const& command);
  void lose_launcher(Supervisor& supervisor);
  void forward_events(Supervisor& supervisor);

  LineReader launcher_;
  HostJob job_;
  std::string rendezvous_;
  std::vector<ProcessPlan> plans_;  ///< of the ranks here
  TemporaryFolder folder_;
  std::unique_ptr<SupervisorPort> port_;
  std::unique_ptr<EventTail> events_;
  ChildProcess::Clock::time_point alive_at_{};  ///< when to say so next
  bool is_alone_ = false;
};

}  // namespace holdfast::launch
