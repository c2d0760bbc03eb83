#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fabrics/fabric.hpp"
#include "fabrics/memory/private_memory.hpp"
#include "fabrics/tcp/link.hpp"

namespace holdfast::fabrics {

class TcpFabric;

/// Memory that connections read from and write to; kept by whatever may still be used by one.
struct TcpMemory {
  TcpMemory(std::shared_ptr<PrivateArena> own_contributions, std::shared_ptr<PrivateArena> own_results)
      : contributions(std::move(own_contributions)), results(std::move(own_results)) {}
  std::shared_ptr<PrivateArena> contributions;
  std::shared_ptr<PrivateArena> results;
  MessagePool pool;
};

/// A range of bytes that comes from one peer in frames, over several connections, each stripe in order.
class TcpArrival {
 public:
  TcpArrival() = default;
  TcpArrival(std::byte* data, std::size_t bytes);

  /// Whether a frame of these bytes is the next of its stripe. If so it is expected from now on, and no other.
  [[nodiscard]] bool expect(std::uint64_t offset, std::size_t bytes);
  void landed(std::uint64_t offset, std::size_t bytes);
  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return data_ + offset; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  /// Bytes at the front that are all here.
  [[nodiscard]] std::size_t arrived() const;
  [[nodiscard]] bool is_complete() const { return arrived() == bytes_; }
  [[nodiscard]] bool has_stripe(std::uint64_t offset) const;

 private:
  [[nodiscard]] std::size_t stripe_bytes(std::size_t stripe) const;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::vector<std::uint32_t> expected_;  // [stripe] bytes at its front that have come or are on their way in
  std::vector<std::uint32_t> landed_;    // [stripe]
  std::size_t whole_stripes_ = 0;        // at the front
};

/// What the fabric and the connections know of an exchange; lives as long as any of them needs it.
class TcpExchangeState final : public TcpParty {
 public:
  TcpExchangeState(TcpFabric& fabric, ExchangeKey key, std::byte const* contribution, std::byte* result);

  void received(FrameHeader const& header, int peer, std::size_t bytes) override;
  /// Where the payload of a row or result lands, once its header is found to be what `peer` has to send next.
  Outcome<std::byte*> place(FrameHeader const& header, int peer);
  /// Whether something that `peer` has to send is missing.
  [[nodiscard]] bool misses(int peer) const;

  std::shared_ptr<TcpMemory> memory;  // first: outlives the buffers below
  ExchangeKey key;
  int rank;
  int ranks;
  std::byte const* contribution;
  std::byte* result;
  std::vector<std::optional<Announcement>> announcements;  // [rank]
  bool is_started = false;
  ExchangePlan plan;
  std::vector<MessagePool::Buffer> rows;                   // [source]
  std::vector<TcpArrival> row_arrivals;                    // [source]
  std::array<std::vector<TcpArrival>, 2> result_arrivals;  // [generation - 1][owner]
  std::vector<std::uint64_t> hashes;                       // [owner]
  std::vector<MessagePool::Buffer> versions;               // [receiver], with plan.per_member
  std::vector<std::byte*> destinations;
  std::vector<TcpSending> row_sendings;                    // [peer][connection]
  std::array<std::vector<TcpSending>, 2> result_sendings;  // [generation - 1][peer][connection]
  int published_generation = 0;                            // whole

  [[nodiscard]] bool receives_from(int owner) const;
  [[nodiscard]] bool sends_results() const;
  [[nodiscard]] std::byte* own_result() const;
};

/// One bulk exchange over connections: rows to pool memory of their owners, results straight into everyone's result.
class TcpExchange final : public Exchange {
 public:
  TcpExchange(TcpFabric& fabric, std::shared_ptr<TcpExchangeState> state);
  ~TcpExchange() override;
  TcpExchange(TcpExchange const&) = delete;
  TcpExchange& operator=(TcpExchange const&) = delete;

  [[nodiscard]] bool announced(int rank) const override;
  [[nodiscard]] Announcement const& announcement(int rank) const override;
  void start(ExchangePlan const& plan) override;
  [[nodiscard]] bool row_arrived(int source, std::size_t bytes) const override;
  [[nodiscard]] std::byte const* row(int source) const override;
  void release_rows() override;
  [[nodiscard]] std::span<std::byte* const> destinations() override;
  [[nodiscard]] std::byte* destination(int receiver) override;
  void publish(int generation, std::size_t bytes, std::uint64_t hash) override;
  [[nodiscard]] bool result_arrived(int owner, int generation) const override;
  [[nodiscard]] std::uint64_t result_hash(int owner) const override;
  [[nodiscard]] bool is_drained() const override;

 private:
  std::vector<TcpSending> sendings(FrameKind kind, int generation) const;
  void post(TcpSending& sending, int peer, std::size_t ready, std::uint64_t hash);

  TcpFabric& fabric_;
  std::shared_ptr<TcpExchangeState> state_;
};

struct TcpSmallState {
  explicit TcpSmallState(int ranks) : bodies(static_cast<std::size_t>(ranks)) {}
  std::vector<std::optional<std::vector<std::byte>>> bodies;  // [rank]
  std::atomic<bool> is_closed{false};
};

class TcpSmallExchange final : public SmallExchange {
 public:
  TcpSmallExchange(TcpFabric& fabric, ExchangeKey key, std::shared_ptr<TcpSmallState> state)
      : fabric_(fabric), key_(key), state_(std::move(state)) {}
  ~TcpSmallExchange() override { state_->is_closed.store(true); }
  TcpSmallExchange(TcpSmallExchange const&) = delete;
  TcpSmallExchange& operator=(TcpSmallExchange const&) = delete;

  void post(std::span<std::byte const> bytes) override;
  [[nodiscard]] bool arrived(int rank) const override;
  [[nodiscard]] std::span<std::byte const> bytes(int rank) const override;

 private:
  TcpFabric& fabric_;
  ExchangeKey key_;
  std::shared_ptr<TcpSmallState> state_;
};

}  // namespace holdfast::fabrics
