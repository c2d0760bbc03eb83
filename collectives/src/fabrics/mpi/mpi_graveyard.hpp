#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include <mpi.h>

#include <holdfast/runtime/interop/mpi.hpp>

#include "fabrics/memory/private_memory.hpp"
#include "fabrics/mpi/mpi_requests.hpp"

namespace holdfast::fabrics {

/// What must live as long as any request is open: a stopped peer that resumes may still write into it. The owners of
/// requests hold it, and it holds the requests; so what never completes stays for good, by design.
struct MpiMemory {
  MpiMemory(MPI_Comm comm, std::vector<int> peers, std::shared_ptr<PrivateArena> own_contributions,
            std::size_t arena_bytes)
      : contributions(std::move(own_contributions)),
        results(std::make_shared<PrivateArena>(arena_bytes)),
        requests(comm, std::move(peers)) {}
  std::shared_ptr<PrivateArena> contributions;
  std::shared_ptr<PrivateArena> results;
  MessagePool pool;
  MpiRequests requests;  // last: requests hold buffers of the pool
};

/// What earlier views left unfinished on a communicator. Nobody waits for it; it goes as its requests complete, and
/// with the last of a view's requests its memory does.
///
/// Between members that live nothing stays: with each new view they tell each other which sends are open, so that each
/// takes what no receive is open for, and gives up receives for which nothing will come. What was under way from or to
/// a member that is gone may never complete: that is at most what a member has open with one peer, once a loss.
/// Threads: the one that drives, which holds mpi_mutex().
class MpiGraveyard {
 public:
  explicit MpiGraveyard(std::shared_ptr<interop::MpiHandle> comm);
  /// With requests open or ranks lost the communicator cannot be freed, nor MPI be finalised, without waiting for peers
  /// that may never answer.
  ~MpiGraveyard();
  MpiGraveyard(MpiGraveyard const&) = delete;
  MpiGraveyard& operator=(MpiGraveyard const&) = delete;

  /// Requests of a fabric that was aborted. Adding it twice does nothing.
  void add(std::shared_ptr<MpiMemory> const& memory);

  [[nodiscard]] std::vector<MpiRequests::OpenSends> open_sends() const;
  /// @param theirs  by rank in the communicator, what each member of the new view said of its open sends
  void settle(std::map<int, std::vector<MpiRequests::OpenSends>> const& theirs);

  /// Collects what has completed.
  void test();
  [[nodiscard]] bool is_empty() const { return memories_.empty() && sinks_.is_idle(); }

 private:
  class Sink;

  std::shared_ptr<interop::MpiHandle> comm_;
  int rank_ = 0;
  bool has_lost_ = false;  ///< a rank of the communicator
  std::vector<std::shared_ptr<MpiMemory>> memories_;
  std::shared_ptr<MessagePool> pool_ = std::make_shared<MessagePool>();
  MpiRequests sinks_;  ///< takes what nobody wants any more
};

}  // namespace holdfast::fabrics
