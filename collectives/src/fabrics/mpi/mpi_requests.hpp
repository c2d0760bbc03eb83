#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <mpi.h>

namespace holdfast::fabrics {

/// Keeps the buffers of requests alive and learns of their completion.
class MpiOwner {
 public:
  virtual ~MpiOwner() = default;
  /// @param bytes received; 0 for a send
  virtual void completed(std::uint32_t lane, std::uint32_t message, std::size_t bytes) = 0;
};

/// Serialises the MPI calls of a process: below MPI_THREAD_MULTIPLE that is required, and some transports deadlock with
/// themselves without it.
[[nodiscard]] std::mutex& mpi_mutex();

/// The open point-to-point requests of one communicator. A request keeps its owner, and so its buffers, until it
/// completes; one that never does keeps them for good.
///
/// Threads: the one that drives, which holds mpi_mutex(); trouble() from any thread.
class MpiRequests {
 public:
  /// @param comm   own communicator that returns errors; MPI_COMM_NULL in a group of one, which never communicates
  /// @param peers  [world size] rank in `comm` of each rank of the view
  MpiRequests(MPI_Comm comm, std::vector<int> peers) : comm_(comm), peers_(std::move(peers)) {}

  struct Ticket {
    std::shared_ptr<MpiOwner> owner;
    int peer = 0;  ///< rank in the view
    std::uint32_t lane = 0;
    std::uint32_t message = 0;
    // Set by send() and receive().
    bool is_send = false;
    int tag = 0;
    std::size_t bytes = 0;
    std::uint64_t serial = 0;  ///< in the order of posting
  };
  void send(Ticket ticket, int tag, std::byte const* data, std::size_t bytes);
  void receive(Ticket ticket, int tag, std::byte* data, std::size_t bytes);

  /// Nothing is posted or tested any more. From any thread.
  void stop() { is_stopped_.store(true); }
  [[nodiscard]] bool is_stopped() const { return is_stopped_.load(); }

  /// Lets MPI move data and reports what completed; true if anything did.
  bool test();

  /// After stop(): collects what is complete already, so that little is left to the process.
  void reap();
  /// The same once. @return whether anything was
  bool collect();

  /// Sends of one tag to one peer that are not complete; as the peer is told.
  struct OpenSends {
    std::int32_t to = 0;  ///< rank in the communicator
    std::int32_t tag = 0;
    std::int32_t messages = 0;
    std::uint32_t most_bytes = 0;  ///< of one of them
  };
  [[nodiscard]] std::vector<OpenSends> open_sends() const;
  /// Gives up receives from these peers, by rank in the communicator. What has begun to arrive is not given up.
  void cancel_receives(std::function<bool(int source)> const& is_unwanted);
  /// After stop(): of the receives from this rank of the communicator keeps the earliest for what is still coming, by
  /// tag, and gives up the others.
  /// @param coming  messages; less those that a receive is open for, afterwards
  void match_receives(int source, std::map<int, std::size_t>& coming);

  [[nodiscard]] bool is_idle() const { return requests_.empty(); }
  /// Sends that are not complete: without this member's MPI calls they may not go on.
  [[nodiscard]] bool is_sending() const { return sends_under_way_ > 0 && !is_stopped(); }
  /// Open requests, or some that were given up after an error.
  [[nodiscard]] bool has_leftovers() const { return !requests_.empty() || !graveyard_.empty(); }
  [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::string trouble() const;
  void report(int peer, std::string_view what);

 private:
  void add(Ticket ticket, int code, MPI_Request request);
  void report_code(int peer, int code);

  MPI_Comm comm_;
  std::vector<int> peers_;
  // Parallel: MPI wants its handles in one array.
  std::vector<MPI_Request> requests_;
  std::vector<Ticket> tickets_;
  struct GivenUp {
    MPI_Request request;
    Ticket ticket;
  };
  std::vector<GivenUp> graveyard_;
  std::size_t sends_under_way_ = 0;
  std::uint64_t last_serial_ = 0;
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
  std::atomic<bool> is_stopped_{false};
  std::atomic<std::uint64_t> sent_bytes_{0};
  mutable std::mutex trouble_mutex_;
  std::string trouble_;
};

}  // namespace holdfast::fabrics
