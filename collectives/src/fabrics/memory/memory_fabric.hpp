#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fabrics/fabric.hpp"
#include "fabrics/memory/control.hpp"
#include "fabrics/memory/memory_arena.hpp"

namespace holdfast::fabrics {

/// One member's memory as this member can address it, and what keeps it mapped.
struct PeerMemory {
  Control* control = nullptr;
  std::byte const* contributions = nullptr;
  std::byte* results = nullptr;
  std::size_t bytes = 0;  ///< of contributions and of results
  std::shared_ptr<void const> mapping;
};

/// A fabric for members that share memory, as threads (loopback) or processes (shm): rows are read where they lie, an
/// owner writes its shard into every member's result.
///
/// What the others write of themselves is believed only within the bounds of their memory: who points elsewhere is
/// suspected, and this member neither reads nor writes there.
class MemoryFabric : public Fabric, private ReadyBoard {
 public:
  using Suspect = std::function<void(int rank, std::string const& evidence)>;

  MemoryFabric(std::string_view name, int rank, std::vector<PeerMemory> peers,
               std::shared_ptr<MemoryArena> contributions, std::shared_ptr<MemoryArena> results, Suspect suspect);
  ~MemoryFabric() override;

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::shared_ptr<Arena> arena(ArenaUse use) override {
    return use == ArenaUse::contribution ? contributions_ : results_;
  }
  [[nodiscard]] std::shared_ptr<MemoryArena> const& contributions() const { return contributions_; }
  [[nodiscard]] std::unique_ptr<Exchange> open(ExchangeKey key, Announcement const& announcement,
                                               std::byte const* contribution, std::byte* result) override;
  [[nodiscard]] std::unique_ptr<SmallExchange> open_small(ExchangeKey key) override;
  [[nodiscard]] Announcement const* early_announcement(ExchangeKey key, int rank) override;
  bool progress() override;
  void wait(std::chrono::nanoseconds at_most) override;
  void wake() override;
  [[nodiscard]] bool any_thread_may_drive() const override { return true; }
  [[nodiscard]] bool rows_are_private() const override { return false; }
  [[nodiscard]] ReadyBoard* ready_board() override { return this; }
  void abort() noexcept override {}
  [[nodiscard]] std::uint64_t sent_bytes() const override { return sent_bytes_.load(std::memory_order_relaxed); }

 private:
  friend class MemoryExchange;
  friend class MemorySmallExchange;

  void publish(std::uint32_t stream, std::uint64_t round, Digest digest) override;
  [[nodiscard]] bool read(int rank, std::uint32_t stream, std::uint64_t round, Digest& digest) const override;

  void ring_others();
  void suspect(int rank, std::string const& what);
  /// Whether that many bytes from there lie in a peer's memory, where its allocations may begin.
  [[nodiscard]] bool is_within(int rank, std::uint64_t offset, std::size_t begin, std::size_t bytes) const;
  [[nodiscard]] Control& own() { return *peers_[static_cast<std::size_t>(rank_)].control; }

  std::string_view name_;
  int rank_;
  std::vector<PeerMemory> peers_;
  std::shared_ptr<MemoryArena> contributions_;
  std::shared_ptr<MemoryArena> results_;
  // Where this member's small messages that do not fit into their slots lie; kept with the slot, since a peer may still
  // be reading when the exchange object is gone.
  struct Overflow {
    std::byte* memory = nullptr;
    std::size_t capacity = 0;
  };
  std::vector<Overflow> overflow_ = std::vector<Overflow>(kMaxStreams * kSlots);
  Suspect suspect_;
  std::vector<bool> is_suspected_;
  std::uint32_t rings_seen_ = 0;
  bool more_ranks_than_cores_;
  std::atomic<std::uint64_t> sent_bytes_{0};
};

}  // namespace holdfast::fabrics
