#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <sys/types.h>

#include <holdfast/runtime/supervisor_port.hpp>

#include "emulated_hosts.hpp"
#include "fault_board.hpp"
#include "local_ranks.hpp"

namespace holdfast::launch {

/// What the members of a fault measurement are told.
struct FaultJobOptions {
  FaultPlan plan;
  int ranks = 4;
  std::string quorum = "majority";
  std::uint64_t join_rate = 0;     ///< bytes per second; 0: no limit
  EmulatedHosts* hosts = nullptr;  ///< ranks in blocks on these; null: all on this host
};

/// One job of members that exchange in a loop, from its start to its end.
class FaultJob {
 public:
  explicit FaultJob(FaultJobOptions options);
  FaultJob(FaultJob const&) = delete;
  FaultJob& operator=(FaultJob const&) = delete;
  ~FaultJob();

  [[nodiscard]] FaultBoard& board() { return *board_; }
  [[nodiscard]] FaultBoard::Member& member(int seat) { return board_->members[static_cast<std::size_t>(seat)]; }
  [[nodiscard]] int host_of(int seat) const;
  /// One more member, in a seat that is free, on the host of another.
  void join(int seat, int neighbour);
  void strike(int seat, int signal);

  /// Whether `is_so` of each of these members within the limit, and while none of them fails.
  template <typename Condition>
  bool wait_for(std::vector<int> const& seats, std::chrono::nanoseconds limit, Condition const& is_so) {
    auto const until = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < until) {
      if (std::all_of(seats.begin(), seats.end(), [&](int seat) { return is_so(member(seat)); })) return true;
      for (int const seat : seats)
        if (member(seat).ended.load() > 1) return false;
      serve();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return false;
  }

  /// Lets the members end after a round that none has reached.
  [[nodiscard]] bool finish(std::vector<int> const& seats);
  /// Looks after the supervisor's port for so long.
  void idle(std::chrono::nanoseconds time);

 private:
  void serve();
  [[nodiscard]] std::vector<std::string> command(std::string const& seat) const;
  [[nodiscard]] std::map<std::string, std::string> settings() const;
  void start(int seat, int host, std::map<std::string, std::string> more = {});
  void start_by_mpirun();
  void launch(std::vector<std::string> const& command, std::vector<std::string> const& variables, bool is_mute,
              int host);
  void end(pid_t pid) const;

  FaultJobOptions options_;
  TemporaryFolder folder_;
  std::filesystem::path board_file_;
  MappedBoard board_;
  LocalJob job_;
  std::optional<SupervisorPort> supervisor_;
  std::vector<pid_t> pids_;
};

}  // namespace holdfast::launch
