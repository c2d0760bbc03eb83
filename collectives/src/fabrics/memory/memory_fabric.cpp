#include "fabrics/memory/memory_fabric.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include <sched.h>

#include <holdfast/runtime/assert.hpp>

#include "fabrics/memory/doorbell.hpp"

namespace holdfast::fabrics {

namespace {

using namespace std::chrono_literals;

// How long to look before going to sleep: a moment with the core, then giving it up to whoever is waited for, since two
// members may well sit on one core. Sleeping at once would cost a wake-up for each step, and a sleeper is likely to be
// woken on the core of its waker.
constexpr auto kLook = 1500ns;
constexpr auto kYield = 60us;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

class MemoryExchange final : public Exchange {
 public:
  MemoryExchange(MemoryFabric& fabric, ExchangeKey key) : fabric_(fabric), key_(key) {}

  [[nodiscard]] bool announced(int rank) const override {
    return slot(rank).announced.load(std::memory_order_acquire) == key_.sequence + 1;
  }
  [[nodiscard]] Announcement const& announcement(int rank) const override { return slot(rank).announcement; }

  void start(ExchangePlan const& plan) override {
    auto const own_rank = static_cast<std::size_t>(fabric_.rank_);
    auto const [begin, bytes] = plan.gather[own_rank];
    shard_bytes_ = bytes;
    contributes_ = plan.contributes;
    ByteRange const row = plan.scatter.empty() ? ByteRange{} : plan.scatter[own_rank];
    receivers_ = 0;
    for (std::size_t rank = 0; rank < fabric_.peers_.size(); ++rank) {
      auto const& peer = fabric_.peers_[rank];
      // Read once: a member that lies may change them at any time.
      auto const& theirs = slot(static_cast<int>(rank));
      std::uint64_t const contribution = theirs.contribution_offset;
      std::uint64_t const result = theirs.result_offset;
      bool const has_row = row.bytes > 0 && plan.contributes[rank];
      bool const is_row_sound =
          !has_row || fabric_.is_within(static_cast<int>(rank), contribution, row.begin, row.bytes);
      bool const is_result_sound = fabric_.is_within(static_cast<int>(rank), result, begin, bytes);
      bool const is_sound = is_row_sound && is_result_sound;
      if (!is_sound) fabric_.suspect(static_cast<int>(rank), "points outside of its shared memory");
      rows_.push_back(is_sound ? peer.contributions + (has_row ? contribution + row.begin : 0) : nullptr);
      by_receiver_.push_back(is_result_sound ? peer.results + result + begin : nullptr);
      if ((plan.gathers || rank == own_rank) && is_result_sound) destinations_.push_back(by_receiver_.back());
    }
    receivers_ = plan.gathers ? fabric_.peers_.size() - 1 : 0;
    if (!plan.scatter.empty() && plan.contributes[own_rank])
      for (std::size_t owner = 0; owner < plan.scatter.size(); ++owner)
        if (owner != own_rank) count(plan.scatter[owner].bytes);
  }

  /// It never left; that of a member that points nowhere never comes.
  [[nodiscard]] bool row_arrived(int source, std::size_t) const override {
    return rows_[static_cast<std::size_t>(source)] != nullptr;
  }
  [[nodiscard]] std::byte const* row(int source) const override { return rows_[static_cast<std::size_t>(source)]; }

  [[nodiscard]] std::span<std::byte* const> destinations() override { return destinations_; }
  [[nodiscard]] std::byte* destination(int receiver) override {
    return by_receiver_[static_cast<std::size_t>(receiver)];
  }

  void publish(int generation, std::size_t bytes, std::uint64_t hash) override {
    if (bytes < shard_bytes_) return;  // nobody reads a shard before it is whole
    count(shard_bytes_ * receivers_);
    Slot& own = slot(fabric_.rank_);
    own.hash = hash;
    own.published.store(4 * (key_.sequence + 1) + static_cast<std::uint64_t>(generation), std::memory_order_release);
    fabric_.ring_others();
  }
  [[nodiscard]] bool result_arrived(int owner, int generation) const override {
    auto const published = slot(owner).published.load(std::memory_order_acquire);
    return published / 4 == key_.sequence + 1 && published % 4 >= static_cast<std::uint64_t>(generation);
  }
  [[nodiscard]] std::uint64_t result_hash(int owner) const override { return slot(owner).hash; }
  [[nodiscard]] bool is_drained() const override { return true; }

  Slot& slot(int rank) const {
    return fabric_.peers_[static_cast<std::size_t>(rank)].control->streams[key_.stream].slots[key_.sequence % kSlots];
  }

 private:
  void count(std::size_t bytes) { fabric_.sent_bytes_.fetch_add(bytes, std::memory_order_relaxed); }

  MemoryFabric& fabric_;
  ExchangeKey key_;
  std::size_t shard_bytes_ = 0;
  std::size_t receivers_ = 0;
  std::vector<std::byte const*> rows_;
  std::vector<bool> contributes_;
  std::vector<std::byte*> destinations_;
  std::vector<std::byte*> by_receiver_;
};

class MemorySmallExchange final : public SmallExchange {
 public:
  MemorySmallExchange(MemoryFabric& fabric, ExchangeKey key)
      : fabric_(fabric), key_(key), messages_(fabric.peers_.size()) {}

  void post(std::span<std::byte const> bytes) override {
    SmallSlot& own = slot(fabric_.rank_);
    own.bytes = static_cast<std::uint32_t>(bytes.size());
    own.is_inline = bytes.size() <= SmallSlot::kInlineBytes ? 1 : 0;
    if (own.is_inline != 0) {
      if (!bytes.empty()) std::memcpy(own.data, bytes.data(), bytes.size());
    } else {
      auto& overflow = fabric_.overflow_[key_.stream * kSlots + key_.sequence % kSlots];
      if (overflow.capacity < bytes.size()) {
        if (overflow.capacity > 0) fabric_.contributions_->release(overflow.memory);
        overflow = {fabric_.contributions_->allocate(bytes.size()), bytes.size()};
        HOLDFAST_ASSERT(overflow.memory != nullptr, "the arena has no room for a small message; raise arena_bytes");
      }
      own.offset = fabric_.contributions_->offset_of(overflow.memory);
      std::memcpy(overflow.memory, bytes.data(), bytes.size());
    }
    own.posted.store(key_.sequence + 1, std::memory_order_release);
    fabric_.sent_bytes_.fetch_add(bytes.size() * (fabric_.peers_.size() - 1), std::memory_order_relaxed);
    fabric_.ring_others();
  }
  [[nodiscard]] bool arrived(int rank) const override {
    auto& message = messages_[static_cast<std::size_t>(rank)];
    if (message) return true;
    SmallSlot const& peer = slot(rank);
    if (peer.posted.load(std::memory_order_acquire) != key_.sequence + 1) return false;
    std::size_t const bytes = peer.bytes;
    std::uint64_t const offset = peer.offset;
    if (peer.is_inline != 0) {
      message = {peer.data, std::min(bytes, SmallSlot::kInlineBytes)};
    } else if (fabric_.is_within(rank, offset, 0, bytes)) {
      message = {fabric_.peers_[static_cast<std::size_t>(rank)].contributions + offset, bytes};
    } else {
      fabric_.suspect(rank, "points outside of its shared memory");
      return false;
    }
    return true;
  }
  [[nodiscard]] std::span<std::byte const> bytes(int rank) const override {
    return *messages_[static_cast<std::size_t>(rank)];
  }

 private:
  SmallSlot& slot(int rank) const {
    return fabric_.peers_[static_cast<std::size_t>(rank)].control->streams[key_.stream].small_slots[key_.sequence %
                                                                                                    kSlots];
  }
  MemoryFabric& fabric_;
  ExchangeKey key_;
  mutable std::vector<std::optional<std::span<std::byte const>>> messages_;  // as first seen, by rank
};

MemoryFabric::MemoryFabric(std::string_view name, int rank, std::vector<PeerMemory> peers,
                           std::shared_ptr<MemoryArena> contributions, std::shared_ptr<MemoryArena> results,
                           Suspect suspect)
    : name_(name),
      rank_(rank),
      peers_(std::move(peers)),
      contributions_(std::move(contributions)),
      results_(std::move(results)),
      suspect_(std::move(suspect)),
      is_suspected_(peers_.size(), false),
      more_ranks_than_cores_(peers_.size() > std::max(1U, std::thread::hardware_concurrency())) {}

MemoryFabric::~MemoryFabric() {
  // The arena goes on into the next view; what a straggler of this one still reads there is of no consequence to it.
  for (auto const& overflow : overflow_)
    if (overflow.capacity > 0) contributions_->release(overflow.memory);
}

std::unique_ptr<Exchange> MemoryFabric::open(ExchangeKey key, Announcement const& announcement,
                                             std::byte const* contribution, std::byte* result) {
  auto exchange = std::make_unique<MemoryExchange>(*this, key);
  Slot& slot = exchange->slot(rank_);
  slot.contribution_offset = contribution != nullptr ? contributions_->offset_of(contribution) : 0;
  slot.result_offset = result != nullptr ? results_->offset_of(result) : 0;
  slot.announcement = announcement;
  slot.announced.store(key.sequence + 1, std::memory_order_release);
  ring_others();
  return exchange;
}

std::unique_ptr<SmallExchange> MemoryFabric::open_small(ExchangeKey key) {
  return std::make_unique<MemorySmallExchange>(*this, key);
}

bool MemoryFabric::is_within(int rank, std::uint64_t offset, std::size_t begin, std::size_t bytes) const {
  std::size_t const all = peers_[static_cast<std::size_t>(rank)].bytes;
  return offset % RegionAllocator::kAlignment == 0 && bytes <= all && begin <= all - bytes &&
         offset <= all - bytes - begin;
}

void MemoryFabric::suspect(int rank, std::string const& what) {
  if (is_suspected_[static_cast<std::size_t>(rank)]) return;
  is_suspected_[static_cast<std::size_t>(rank)] = true;
  if (suspect_) suspect_(rank, "rank " + std::to_string(rank) + " " + what);
}

Announcement const* MemoryFabric::early_announcement(ExchangeKey key, int rank) {
  Slot const& slot = peers_[static_cast<std::size_t>(rank)].control->streams[key.stream].slots[key.sequence % kSlots];
  return slot.announced.load(std::memory_order_acquire) == key.sequence + 1 ? &slot.announcement : nullptr;
}

void MemoryFabric::ring_others() {
  for (std::size_t rank = 0; rank < peers_.size(); ++rank)
    if (static_cast<int>(rank) != rank_) ring(peers_[rank].control->doorbell);
}

bool MemoryFabric::progress() {
  auto const rings = own().doorbell.rings.load(std::memory_order_acquire);
  return std::exchange(rings_seen_, rings) != rings;
}

void MemoryFabric::wait(std::chrono::nanoseconds at_most) {
  Doorbell& doorbell = own().doorbell;
  auto const was_rung = [&] { return doorbell.rings.load(std::memory_order_acquire) != rings_seen_; };
  auto const start = std::chrono::steady_clock::now();
  auto const look_until = start + (more_ranks_than_cores_ ? 0ns : kLook);
  auto const yield_until = start + std::min<std::chrono::nanoseconds>(kYield, at_most);
  for (auto now = start; now < yield_until; now = std::chrono::steady_clock::now()) {
    for (int look = 0; look < 16; ++look) {
      if (was_rung()) return;
      pause();
    }
    if (now >= look_until) ::sched_yield();
  }
  auto const rings = announce_sleep(doorbell);
  if (rings != rings_seen_) {
    cancel_sleep(doorbell);
    return;
  }
  sleep(doorbell, rings, at_most);
}

void MemoryFabric::wake() {
  ring(own().doorbell);
}

void MemoryFabric::publish(std::uint32_t stream, std::uint64_t round, Digest digest) {
  ReadyWord& word = own().streams[stream].ready[round % 2];
  word.high = digest.high;
  word.low = digest.low;
  word.round.store(round + 1, std::memory_order_release);
  ring_others();
}

bool MemoryFabric::read(int rank, std::uint32_t stream, std::uint64_t round, Digest& digest) const {
  ReadyWord const& word = peers_[static_cast<std::size_t>(rank)].control->streams[stream].ready[round % 2];
  if (word.round.load(std::memory_order_acquire) != round + 1) return false;
  digest = {word.high, word.low};
  return true;
}

}  // namespace holdfast::fabrics
