#pragma once

#include <chrono>
#include <optional>
#include <vector>

namespace holdfast::launch {

/// Status for "checkpointed, please requeue".
inline constexpr int kRequeueStatus = 75;
/// Status of a member that the others went on without.
inline constexpr int kEvictedStatus = 76;

/// When a job goes on after losses, when it ends, and with which status. No processes and no clock of its own.
///
/// A rank is *lost* when it ends by a signal or as evicted after it had become a member, or in any bad way once its
/// restarts are used up: the others can go on without it. Any other bad end is a *failure*, which the job's status
/// tells.
class JobPolicy {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    /// Members go on without those that are lost; else each loss is a failure.
    bool survives = true;
    /// With fewer ranks than this the job ends.
    int min = 1;
    bool are_members = false;  ///< from their start
    /// Lost and failed ranks are started again, each this often.
    int max_restarts = 0;
    /// Somebody starts ranks again, perhaps not who asks this policy: a failure is no more than a loss.
    bool is_elastic = false;
    Clock::duration backoff =
        std::chrono::seconds(1);  ///< before the first restart; each further one waits twice as long
    Clock::duration longest_backoff = std::chrono::seconds(60);
    /// A rank that ran this long has its restarts back.
    Clock::duration forgives_after = std::chrono::minutes(10);
  };

  enum class Step {
    go_on,    ///< without it
    restart,  ///< at the instant given
    end,      ///< the others have the grace period
    stop,     ///< too few are left: they are told to end
  };
  struct Decision {
    Step step = Step::go_on;
    Clock::time_point restart_at{};
    int restarts = 0;  ///< of this rank, this one included
  };

  JobPolicy(int ranks, Options options);

  void on_started(int rank, Clock::time_point now);
  /// The process of this rank has become a member.
  void on_member(int rank);
  /// @param by_signal  the process was killed; `status` is then 128 + the signal
  [[nodiscard]] Decision on_ended(int rank, int status, bool by_signal, Clock::time_point now);
  /// From now on ends are answers to our own signals: no loss, and no restart.
  void on_ending() { is_ending_ = true; }

  /// 0 when all that were not lost ended with 0, and somebody did; kRequeueStatus when all others among them ended with
  /// it; else the status of the first failure.
  [[nodiscard]] int status() const;
  [[nodiscard]] int lost() const;  ///< ranks that are not there any more although the job went on
  [[nodiscard]] int running() const;
  [[nodiscard]] bool is_finishing() const;  ///< a rank has ended well
  /// Whether this rank is to be started, for the first time or again.
  [[nodiscard]] bool is_waiting(int rank) const { return at(rank).state == State::waiting; }
  /// Whether this rank's process is one that was started again.
  [[nodiscard]] bool is_restarted(int rank) const { return at(rank).restarts > 0; }

 private:
  enum class State { waiting, running, done, lost, failed };
  struct Rank {
    State state = State::waiting;
    bool is_member = false;
    int restarts = 0;
    int status = 0;
    Clock::time_point started{};
  };
  [[nodiscard]] Rank const& at(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }

  Options options_;
  std::vector<Rank> ranks_;
  int first_status_ = 0;   ///< of the first that did not end well, lost or not
  int first_failure_ = 0;  ///< of the first failure
  bool is_ending_ = false;
};

}  // namespace holdfast::launch
