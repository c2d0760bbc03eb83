#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast::fabrics {

/// Names one exchange of a view; the same at all members. Sequences of a stream start at 0 and have no gaps.
struct ExchangeKey {
  std::uint32_t stream = 0;  ///< below kMaxStreams
  std::uint64_t sequence = 0;
};

inline constexpr std::uint32_t kMaxStreams = 8;
/// Exchanges (and, counted apart, small exchanges) that may be open at once on a stream. A caller opens sequence s only
/// when it is done with sequence s - kWindow, so slots and tags of s - 2 * kWindow are free at every member.
inline constexpr std::uint64_t kWindow = 512;

/// What a member says of an exchange before any data moves. The fabric carries it and does not look inside.
using Announcement = std::array<std::byte, 96>;

struct ByteRange {
  std::size_t begin = 0;
  std::size_t bytes = 0;
};

/// Which bytes go where, equal at all members.
struct ExchangePlan {
  std::vector<ByteRange> scatter;  ///< [world size] part of every contribution that owner j reads; empty: no scatter
  std::vector<bool> contributes;   ///< [world size] whose contribution is scattered
  std::vector<ByteRange> gather;   ///< [world size] part of every result that owner j writes
  bool gathers = true;             ///< false: an owner's part goes into its own result alone
  bool per_member = false;         ///< an owner's part differs from receiver to receiver
  std::size_t chunk_bytes = 0;     ///< granularity in which a fabric that copies moves its messages
};

/// One bulk exchange: rows to their owners, shards of the result to everyone.
///
/// The order of calls: announced() of all, start(), then for this member's shard row_arrived()/row(), write to the
/// destinations, publish(), and result_arrived() of every owner. A second generation of the result may be published
/// after the first: it replaces it, and both sides ask for it by number.
/// Threads: only the thread that drives the fabric.
class Exchange {
 public:
  virtual ~Exchange() = default;

  [[nodiscard]] virtual bool announced(int rank) const = 0;
  [[nodiscard]] virtual Announcement const& announcement(int rank) const = 0;

  /// Data may move from now on. Called once, only when all members have announced the same exchange.
  virtual void start(ExchangePlan const& plan) = 0;

  /// Whether the first `bytes` of `source`'s row of this member's shard can be read at row(source).
  [[nodiscard]] virtual bool row_arrived(int source, std::size_t bytes) const = 0;
  [[nodiscard]] virtual std::byte const* row(int source) const = 0;

  /// No row will be read any more: a fabric that copied them may use that memory again.
  virtual void release_rows() {}

  /// Places into which this owner writes each byte of its shard (at the same offset from each pointer).
  [[nodiscard]] virtual std::span<std::byte* const> destinations() = 0;
  /// Instead, with plan.per_member: where `receiver`'s own version of this owner's shard is written.
  [[nodiscard]] virtual std::byte* destination(int receiver) = 0;

  /// The first `bytes` of this owner's shard are final in `generation` (1 or 2); a fabric that copies may send them.
  /// With `bytes` the whole shard, `hash` goes along.
  virtual void publish(int generation, std::size_t bytes, std::uint64_t hash) = 0;
  /// Whether the whole shard of `owner` in `generation` is in this member's result.
  [[nodiscard]] virtual bool result_arrived(int owner, int generation) const = 0;
  /// The hash that came with it.
  [[nodiscard]] virtual std::uint64_t result_hash(int owner) const = 0;

  /// Whether neither contribution nor result of this member are in use by this member's own sends any more.
  [[nodiscard]] virtual bool is_drained() const = 0;
};

/// Everyone's few bytes to everyone.
class SmallExchange {
 public:
  virtual ~SmallExchange() = default;
  virtual void post(std::span<std::byte const> bytes) = 0;
  [[nodiscard]] virtual bool arrived(int rank) const = 0;
  [[nodiscard]] virtual std::span<std::byte const> bytes(int rank) const = 0;
};

/// READY words where a fabric has something faster than the control connections.
class ReadyBoard {
 public:
  virtual ~ReadyBoard() = default;
  /// Only stores a word; never blocks.
  virtual void publish(std::uint32_t stream, std::uint64_t round, Digest digest) = 0;
  [[nodiscard]] virtual bool read(int rank, std::uint32_t stream, std::uint64_t round, Digest& digest) const = 0;
};

enum class ArenaUse { contribution, result };

/// Memory that a fabric's exchanges can use directly. Outlives the fabric where buckets still hold some of it.
///
/// Threads: all functions from any thread.
class Arena {
 public:
  virtual ~Arena() = default;
  /// 64-byte aligned and zero-filled. Null when the arena is full.
  [[nodiscard]] virtual std::byte* allocate(std::size_t bytes) = 0;
  virtual void release(std::byte* memory) = 0;
};

/// Moves bytes between the members of one view and knows nothing of floats. Created per view.
///
/// The contribution arena is taken over by the fabric of the next view: what the others only read stays where it is.
/// The result arena is the fabric's own: a member that was left behind may still write into it. Threads: one thread at
/// a time drives (open, progress, wait and everything on exchanges); arena, wake and abort from
///          any thread.
class Fabric {
 public:
  virtual ~Fabric() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;

  [[nodiscard]] virtual std::shared_ptr<Arena> arena(ArenaUse use) = 0;

  /// Announces an exchange. `contribution` and `result` are arena memory (null where this exchange has none) and stay
  /// in use until the exchange is over at all members.
  [[nodiscard]] virtual std::unique_ptr<Exchange> open(ExchangeKey key, Announcement const& announcement,
                                                       std::byte const* contribution, std::byte* result) = 0;
  [[nodiscard]] virtual std::unique_ptr<SmallExchange> open_small(ExchangeKey key) = 0;

  /// What `rank` said of an exchange that this member has not opened yet; null: nothing so far.
  [[nodiscard]] virtual Announcement const* early_announcement(ExchangeKey key, int rank) = 0;

  /// Moves what can be moved now; true if anything happened.
  virtual bool progress() = 0;
  /// Returns when something may have happened, wake() was called, or `at_most` has passed. May return early.
  virtual void wait(std::chrono::nanoseconds at_most) = 0;
  virtual void wake() = 0;

  /// Whether peers wait for something that moves only while this member drives, though it waits for nothing itself.
  [[nodiscard]] virtual bool is_busy() const { return false; }

  /// Whether any thread may drive (in turn), or only the communicator's own.
  [[nodiscard]] virtual bool any_thread_may_drive() const = 0;
  /// Whether row() is memory that no other member can change.
  [[nodiscard]] virtual bool rows_are_private() const = 0;
  /// Null: READY goes over the control connections.
  [[nodiscard]] virtual ReadyBoard* ready_board() = 0;
  /// A failure that only the fabric saw; it feeds suspicion and decides nothing.
  [[nodiscard]] virtual std::string trouble() const { return {}; }

  /// Stops all movement. Never blocks.
  virtual void abort() noexcept = 0;
  [[nodiscard]] virtual std::uint64_t sent_bytes() const = 0;
};

}  // namespace holdfast::fabrics
