#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <mpi.h>

#include <holdfast/runtime/interop/mpi.hpp>

#include "fabrics/fabric.hpp"
#include "fabrics/memory/private_memory.hpp"
#include "fabrics/mpi/mpi_graveyard.hpp"
#include "fabrics/mpi/mpi_requests.hpp"
#include "fabrics/registry.hpp"

namespace holdfast::fabrics {

/// What a tag says. 15 bits hold all of it, the most that the standard promises; the view goes above where there is
/// room.
class MpiTags {
 public:
  enum class Kind : unsigned { announcement = 0, row = 1, first_result = 2, second_result = 3, small = 4 };

  MpiTags(int largest_tag, ViewId view);
  /// Two exchanges of a stream that are kWindow apart share their tags: each end is done with the older one before it
  /// opens the newer, and messages with one source and tag keep their order.
  [[nodiscard]] int of(Kind kind, ExchangeKey key) const {
    static_assert(kMaxStreams == 8 && kWindow == 512);
    return view_bits_ | static_cast<int>(static_cast<unsigned>(kind) << 12 | key.stream << 9 |
                                         static_cast<unsigned>(key.sequence % kWindow));
  }

 private:
  int view_bits_ = 0;
};

/// Nonblocking point-to-point messages on a communicator of its own. MPI only moves bytes here: who is alive is decided
/// by the control plane, and an error of MPI feeds suspicion alone.
///
/// Rows and the small messages are received into pool memory, results into the arena; neither is unmapped while a
/// request is open. Requests that are still open when the fabric goes are left to the graveyard, with all their memory:
/// there is no way to end a matched receive from a stopped peer.
class MpiFabric final : public Fabric {
 public:
  /// @param comm  duplicated for this fabric, MPI_ERRORS_RETURN; empty handle in a group of one without MPI
  /// @param peers [world size] rank in `comm` of each rank of the view
  MpiFabric(std::shared_ptr<interop::MpiHandle> comm, std::shared_ptr<MpiGraveyard> graveyard, std::vector<int> peers,
            FabricContext const& context);
  ~MpiFabric() override;
  MpiFabric(MpiFabric const&) = delete;
  MpiFabric& operator=(MpiFabric const&) = delete;

  [[nodiscard]] std::string_view name() const override { return "mpi"; }
  [[nodiscard]] std::shared_ptr<interop::MpiHandle> const& communicator() const { return comm_; }
  [[nodiscard]] std::shared_ptr<MpiGraveyard> const& graveyard() const { return graveyard_; }
  /// After abort(): what is open goes to the graveyard.
  void bury();
  [[nodiscard]] std::shared_ptr<Arena> arena(ArenaUse use) override {
    return use == ArenaUse::contribution ? memory_->contributions : memory_->results;
  }
  /// MPI tells nobody of a message that no receive was posted for, so members of this fabric wait for late ones.
  [[nodiscard]] Announcement const* early_announcement(ExchangeKey, int) override { return nullptr; }
  [[nodiscard]] std::unique_ptr<Exchange> open(ExchangeKey key, Announcement const& announcement,
                                               std::byte const* contribution, std::byte* result) override;
  [[nodiscard]] std::unique_ptr<SmallExchange> open_small(ExchangeKey key) override;
  bool progress() override;
  void wait(std::chrono::nanoseconds at_most) override;
  void wake() override;
  [[nodiscard]] bool any_thread_may_drive() const override { return false; }
  [[nodiscard]] bool rows_are_private() const override { return true; }
  [[nodiscard]] bool is_busy() const override { return memory_->requests.is_sending(); }
  [[nodiscard]] ReadyBoard* ready_board() override { return nullptr; }
  [[nodiscard]] std::string trouble() const override { return memory_->requests.trouble(); }
  void abort() noexcept override;
  [[nodiscard]] std::uint64_t sent_bytes() const override { return memory_->requests.sent_bytes(); }

 private:
  friend class MpiExchange;
  friend class MpiSmallExchange;

  /// A stay inside MPI. One that does not return ends the process: heartbeats would not show it.
  class Turn {
   public:
    explicit Turn(MpiFabric& fabric);
    ~Turn();
    Turn(Turn const&) = delete;
    Turn& operator=(Turn const&) = delete;

   private:
    std::lock_guard<std::mutex> lock_;
    std::atomic<std::uint64_t>& number_;
  };

  [[nodiscard]] int world_size() const { return world_size_; }
  /// Sleeps until wake(); true if it was called.
  bool sleep(std::chrono::nanoseconds at_most);
  void watch(std::stop_token stop);
  /// Looks at the graveyard now and then; inside a turn.
  void visit_graveyard();

  std::shared_ptr<interop::MpiHandle> comm_;  // one for all views: a new one would need those who are gone
  std::shared_ptr<MpiGraveyard> graveyard_;   // likewise
  int rank_;
  int world_size_;
  MpiTags tags_;
  std::shared_ptr<MpiMemory> memory_;
  std::mutex wake_mutex_;
  std::condition_variable wakes_;
  bool is_woken_ = false;
  std::chrono::steady_clock::time_point graveyard_seen_{};
  std::atomic<std::uint64_t> turn_{0};  // odd: inside MPI
  std::jthread watchdog_;               // last: it looks at the members above
};

}  // namespace holdfast::fabrics
