#pragma once

#include <memory>
#include <string>
#include <vector>

#include <holdfast/runtime/deadline.hpp>

namespace holdfast::net {

/// This process's MPI, as far as the runtime needs it: who am I, and one all-gather of records at start.
///
/// If nobody initialised MPI, start() does, and MPI_Finalize runs when the process exits. After a failure it does not:
/// it may never return. The process then ends by _exit with the status that main returned or exit() was given, after
/// the standard streams are flushed; destructors of static objects do not run in that case.
class MpiSession {
 public:
  /// Whether MPI is initialised and not finalised, by whomever.
  [[nodiscard]] static bool is_running();
  /// @throws Error not_built without MPI in this build, environment when MPI cannot be used from several threads
  [[nodiscard]] static std::shared_ptr<MpiSession> start();

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int world_size() const { return world_size_; }
  /// Every rank's text, in rank order.
  /// @throws Error start_failed when not all ranks took part in time
  [[nodiscard]] std::vector<std::string> all_gather(std::string const& mine, Deadline deadline) const;
  /// What this mpirun does when a rank dies, and which flags change that; empty where survivors may go on.
  [[nodiscard]] static std::string explain_lost_rank();
  /// A member was lost: MPI is not finalised any more.
  static void note_failure() noexcept;

 private:
  int rank_ = 0;
  int world_size_ = 1;
};

}  // namespace holdfast::net
