#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <torch/arg.h>

#include <holdfast/optim/fwd.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {

class StateRegistry;

struct CheckpointerOptions {
  /// Where checkpoints are, the same for all members; made when it is not there.
  TORCH_ARG(std::string, folder) = "checkpoints";
  /// Steps between two checkpoints; 0: only when asked.
  TORCH_ARG(std::uint64_t, every) = 0;
  /// Newest checkpoints that stay; the one before the newest is what a damaged one is replaced by.
  TORCH_ARG(int, keep) = 2;
  /// SIGUSR1: save and go on. SIGUSR2 and SIGTERM: save and end with kRequeueExitCode. A signal to one member counts
  /// for all. Under mpirun SIGTERM leaves about two seconds; SIGUSR2 leaves all the time it takes.
  TORCH_ARG(bool, on_signals) = true;
  /// Steps between two looks at whether any member got a signal; a look is a small exchange between all. 1 where steps
  /// take seconds; 0: only when a checkpoint is due.
  TORCH_ARG(std::uint64_t, listen_every) = 10;
  /// Files that replicated state is divided over, each written by another member.
  TORCH_ARG(int, shards) = 1;
  /// How long step() waits for the others, and save() for the disks; 0: as op_timeout of the group's Config.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds{0};
};

/// Exit code that says: the state is saved, please start me again. Batch templates and `holdfast run` know it.
inline constexpr int kRequeueExitCode = 75;

/// What became of a step boundary; the same at all members.
struct CheckpointBoundary {
  bool is_saving = false;                ///< a checkpoint of this step was begun
  bool must_end = false;                 ///< it is on the disk and the loop should return kRequeueExitCode
  std::optional<std::uint64_t> durable;  ///< step of a checkpoint that is known to be on the disk since this boundary
};

/// Checkpoints of a StateRegistry, agreed between the members of a group.
///
///     TrainingState state;
///     state.add_model(model).add_optimizer(adamw).add_counter("step", step).add_random();
///     Checkpointer checkpointer(group, state.registry(), CheckpointerOptions().folder("run7").every(500));
///     if (auto from = checkpointer.resume(); !from) return from.error().exit_code();
///     while (step < steps) {
///       …one step…; if (!outcome) return checkpointer.give_up(outcome.error());
///       auto const boundary = checkpointer.step(++step);
///       if (!boundary) return checkpointer.give_up(boundary.error());
///       if (boundary->must_end) return kRequeueExitCode;
///     }
///     checkpointer.save(step);
///
/// At a boundary the state is copied in memory; a thread writes it while training goes on. One checkpoint is in flight
/// at most: one that is due meanwhile is left out, with a line in the log. A checkpoint whose writing failed, or one of
/// whose members was lost before it was on the disk, is given up and the one before stays.
///
/// A crash at any instant loses the steps since the last durable checkpoint only when the whole job ends; while members
/// are left the group goes on from where it was.
///
/// Collective: all members construct with the same options and call step(), save() and resume() at the same steps
/// Threads:    one at a time; request_save() and request_end() from any
class Checkpointer {
 public:
  /// @param state  must outlive this object
  /// @throws Error bad_argument: no folder, keep or shards below 1
  Checkpointer(Group const& group, StateRegistry& state, CheckpointerOptions const& options = {});
  /// Waits for what is being written by this member.
  ~Checkpointer();
  Checkpointer(Checkpointer const&) = delete;
  Checkpointer& operator=(Checkpointer const&) = delete;

  /// Loads the newest checkpoint that is whole at all members; a damaged one is refused by name in the log.
  ///
  /// With another number of members too: replicated state goes to all, own state to the ranks that had one. What ranks
  /// that are no more had of their own (momentum, residuals) is lost, as when they die; ranks that are new start with
  /// none, as joiners do. One that joins a running group does not call this: it gets its state from the others.
  /// @return its step, or nothing when there is no checkpoint; corrupt_message when all are damaged; mismatch naming
  /// the part that another model or other
  ///         options made; diverged when members loaded different states
  [[nodiscard]] Outcome<std::optional<std::uint64_t>> resume();

  /// After each step. @param step  steps done, as the state has it
  /// @return as Group::all_gather; or environment when the last checkpoint before an end could not be written
  [[nodiscard]] Outcome<CheckpointBoundary> step(std::uint64_t step);

  /// Saves now and returns when the checkpoint is on the disk, or why it is not.
  [[nodiscard]] Outcome<void> save(std::uint64_t step);

  /// What SIGUSR1, and what SIGUSR2 and SIGTERM do, at the next look. One member's request counts for all.
  void request_save();
  void request_end();

  /// The exit code of a loop that ends because of `failure`. A member that is parked first writes what it has, alone:
  /// the state after the last committed step.
  [[nodiscard]] int give_up(Failure const& failure);

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
