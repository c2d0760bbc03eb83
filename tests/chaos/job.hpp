#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>

#include "board.hpp"
#include "plan.hpp"
#include "relay.hpp"

namespace holdfast::chaos {

struct JobOptions {
  std::string fabric = "shm";
  std::size_t members = 5;  ///< at the start, and the most at a time
  std::string mpirun;       ///< command and flags, for fabric mpi
};

/// What happened to a job so far.
struct Counts {
  std::uint64_t kills = 0;
  std::uint64_t stops = 0;
  std::uint64_t continues = 0;
  std::uint64_t cuts = 0;
  std::uint64_t heals = 0;
  std::uint64_t joins = 0;  ///< newcomers that committed a round
  std::uint64_t evictions = 0;
  std::uint64_t view_changes = 0;
  std::uint64_t parked_jobs = 0;  ///< ended because too many had died at once for those left to be a quorum
  Counts& operator+=(Counts const& other);
};

/// Real processes that run rounds, what strikes them, and whether those who should go on do.
class Job {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Job(JobOptions options);
  ~Job();
  Job(Job const&) = delete;
  Job& operator=(Job const&) = delete;

  /// Until the members have committed a few rounds. @return what is wrong, empty if nothing
  [[nodiscard]] std::string start();
  /// Lets the plan strike until then, or until too few members are left. @return what is wrong
  [[nodiscard]] std::string run(Plan& plan, Clock::time_point until);
  /// Continues and heals everything, lets the members reach a common last round and waits for their ends.
  [[nodiscard]] std::string finish();

  [[nodiscard]] std::filesystem::path const& folder() const { return folder_; }
  /// Leaves the folder for who wants to look.
  void keep_folder() { keeps_folder_ = true; }
  [[nodiscard]] Counts const& counts() const { return counts_; }
  /// Seats whose process this job killed, so that their records end anywhere.
  [[nodiscard]] std::set<std::size_t> const& killed() const { return killed_; }
  /// Whether those that were left could not go on, by the rules of the quorum.
  [[nodiscard]] bool has_parked() const { return counts_.parked_jobs > 0; }
  /// One for every member there ever was.
  [[nodiscard]] std::size_t seats() const { return seats_; }

 private:
  struct Pending {
    Clock::time_point at;
    Fault fault;
    std::size_t seat = 0;
    std::vector<std::pair<std::size_t, std::size_t>> links;
  };
  /// The newest view that any member has shown.
  struct Newest {
    std::uint64_t number = 0;
    std::size_t size = 0;
    std::vector<std::size_t> seats;  ///< of its members, as far as they have shown themselves
  };

  void launch(std::vector<std::string> const& command, std::vector<std::string> const& variables, std::string log);
  [[nodiscard]] std::vector<std::string> settings() const;
  [[nodiscard]] std::string rendezvous() const;
  /// @param place  variables that tell it where the others are
  void start_member(std::size_t seat, std::vector<std::string> const& place);
  void strike(Event const& event);
  void add_member();
  void end_due(Clock::time_point now);
  void end_fault(Pending const& pending);
  [[nodiscard]] Newest newest() const;
  [[nodiscard]] bool is_alive(std::size_t seat) const;
  [[nodiscard]] bool is_running(std::size_t seat) const;
  [[nodiscard]] std::vector<std::size_t> running() const;
  [[nodiscard]] std::vector<std::size_t> running_in(Newest const& view) const;
  [[nodiscard]] bool has_quorum(Newest const& view) const;
  /// Some would be a quorum if everything were continued and healed.
  [[nodiscard]] bool can_have_quorum(Newest const& view, std::size_t more_deaths) const;
  [[nodiscard]] std::string watch(Clock::time_point now);
  [[nodiscard]] std::string find_crash();
  void say(std::string const& what);
  [[nodiscard]] std::uint64_t last_round() const;

  JobOptions options_;
  std::filesystem::path folder_;
  bool keeps_folder_ = false;
  std::unique_ptr<MappedBoard> board_;
  std::unique_ptr<Relay> relay_;
  std::size_t seats_;
  std::vector<pid_t> children_;
  std::set<std::size_t> killed_;
  std::set<std::size_t> stopped_;
  std::vector<Pending> pending_;
  Counts counts_;
  Clock::time_point began_{};
  Clock::time_point moved_at_{};  ///< last commit, or no quorum
  std::uint64_t moved_round_ = 0;
};

}  // namespace holdfast::chaos
