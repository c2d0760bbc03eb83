#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "fault_board.hpp"
#include "shell.hpp"

namespace holdfast::launch::test {

/// A loop of exchanges under `holdfast run`, whose members show on a board how far they are.
class TrainingJob {
 public:
  /// @param launch  the command that starts the ranks, up to `--`, in a shell where $HOLDFAST is the command and the
  ///                current folder the job's own
  /// @param seat    where a rank shows itself on the board, in the shell that becomes it
  /// @param state   bytes of state that newcomers fetch; 0: nobody can join
  TrainingJob(int ranks, std::string const& launch, std::string const& fabric = "shm",
              std::string const& seat = "${RANK:-$LOCAL_RANK}", std::size_t state = 0)
      : ranks_(ranks), board_(shell_.path() / "board", true), run_([this, launch, fabric, seat, state] {
          std::string const folder = shell_.path().string();
          result_ = shell_.run("export HOLDFAST_LOG_LEVEL=warning; member=\"exec '$HOLDFAST' bench-fault-member '" +
                                   folder + "/board'\"' " + seat + " " + fabric + " 65536 " + std::to_string(state) +
                                   "'\n" + launch + " -- sh -c \"$member\"",
                               kLimit);
          is_over_.store(true);
        }) {}
  TrainingJob(TrainingJob const&) = delete;
  TrainingJob& operator=(TrainingJob const&) = delete;
  ~TrainingJob() {
    board_->stop_after.store(0);
    if (is_over_.load()) return;
    // A test that failed half-way leaves nobody stopped.
    for (int rank = 0; rank < ranks_; ++rank)
      if (auto const pid = member(rank).pid.load(); pid > 0) ::kill(static_cast<pid_t>(pid), SIGCONT);
  }

  [[nodiscard]] FaultBoard::Member& member(int rank) { return board_->members[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::filesystem::path const& folder() const { return shell_.path(); }
  void strike(int rank, int signal) { ::kill(static_cast<pid_t>(member(rank).pid.load()), signal); }

  template <typename Condition>
  bool all(std::vector<int> const& ranks, Condition const& is_so,
           std::chrono::seconds limit = std::chrono::seconds(30)) {
    auto const until = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < until && !is_over_.load()) {
      if (std::all_of(ranks.begin(), ranks.end(), [&](int rank) { return is_so(member(rank)); })) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return std::all_of(ranks.begin(), ranks.end(), [&](int rank) { return is_so(member(rank)); });
  }
  [[nodiscard]] bool are_running(std::vector<int> const& ranks) {
    return all(
        ranks, [](auto& one) { return one.commits.load() >= 3; }, std::chrono::seconds(50));
  }
  /// Whether all these have committed in a view after this one.
  [[nodiscard]] bool go_on(std::vector<int> const& ranks, std::uint64_t after_view) {
    return all(ranks, [after_view](auto& one) { return one.view.load() > after_view; });
  }
  /// Tells the members to end soon.
  void let_end(std::vector<int> const& ranks) {
    std::uint64_t last = 0;
    for (int const rank : ranks) last = std::max(last, member(rank).last_round.load());
    board_->stop_after.store(last + 4);
  }
  ShellResult finish(std::vector<int> const& ranks) {
    let_end(ranks);
    run_.join();
    return result_;
  }
  [[nodiscard]] std::string events() const { return contents(shell_.path() / "events"); }

 private:
  static constexpr int kLimit = 110;

  int ranks_;
  Shell shell_;
  MappedBoard board_;
  ShellResult result_;
  std::atomic<bool> is_over_{false};
  std::jthread run_;
};

}  // namespace holdfast::launch::test
