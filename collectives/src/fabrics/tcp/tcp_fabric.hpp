#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

#include "fabrics/fabric.hpp"
#include "fabrics/tcp/link.hpp"
#include "fabrics/tcp/shaper.hpp"
#include "fabrics/tcp/tcp_exchange.hpp"
#include "net/secure_stream.hpp"

namespace holdfast::fabrics {

/// The connections of one member to its peers, in the order of ranks: none to itself. Each pair has one for small
/// frames, which is always read, and `bulk` for rows and results.
struct TcpMesh {
  std::unique_ptr<asio::io_context> io;
  std::vector<std::vector<std::unique_ptr<net::SecureStream>>> streams;  ///< [peer][0: small frames, 1...: bulk]
  std::size_t bulk = 1;
};

/// Messages over TCP connections of its own, received straight to where they belong. There is no thread: whoever drives
/// moves the bytes, so they are reduced by the core that received them.
///
/// What a peer sends is read only where it has a place: small frames at once (their number is bounded by the window),
/// rows and results once the exchange has started here. What is under way beyond that waits in the sender's memory,
/// behind the bounded buffers of the connection. No frame of another view is ever taken.
/// Why waiting on one connection cannot end in a deadlock: rows come only from members that have started the exchange,
/// which needs everybody's announcement; those are small frames, on connections that are always read.
class TcpFabric final : public Fabric, private ReadyBoard, private TcpListener {
 public:
  /// Feeds suspicion of a rank.
  using Suspect = std::function<void(int rank, std::string const& evidence)>;

  TcpFabric(TcpMesh mesh, std::shared_ptr<TcpMemory> memory, int rank, ViewId view,
            std::optional<EmulatedLink> emulated, Suspect suspect);
  ~TcpFabric() override;
  TcpFabric(TcpFabric const&) = delete;
  TcpFabric& operator=(TcpFabric const&) = delete;

  [[nodiscard]] std::string_view name() const override { return "tcp"; }
  [[nodiscard]] std::shared_ptr<Arena> arena(ArenaUse use) override {
    return use == ArenaUse::contribution ? memory_->contributions : memory_->results;
  }
  [[nodiscard]] std::unique_ptr<Exchange> open(ExchangeKey key, Announcement const& announcement,
                                               std::byte const* contribution, std::byte* result) override;
  [[nodiscard]] std::unique_ptr<SmallExchange> open_small(ExchangeKey key) override;
  [[nodiscard]] Announcement const* early_announcement(ExchangeKey key, int rank) override;
  bool progress() override;
  void wait(std::chrono::nanoseconds at_most) override;
  void wake() override;
  [[nodiscard]] bool is_busy() const override;
  [[nodiscard]] bool any_thread_may_drive() const override { return true; }
  [[nodiscard]] bool rows_are_private() const override { return true; }
  [[nodiscard]] ReadyBoard* ready_board() override { return this; }
  [[nodiscard]] std::string trouble() const override;
  void abort() noexcept override;
  [[nodiscard]] std::uint64_t sent_bytes() const override { return sent_bytes_.load(std::memory_order_relaxed); }

 private:
  friend class TcpExchange;
  friend class TcpExchangeState;
  friend class TcpSmallExchange;

  struct Wire {
    Wire(net::SecureStream& stream, TcpListener& listener, int peer, ViewId view, bool collects)
        : link(stream, listener, peer, view, collects) {}
    TcpLink link;
    bool awaits_read = false;
    bool awaits_write = false;
    bool is_over = false;  ///< its end has been dealt with
  };
  struct Peer {
    std::vector<std::unique_ptr<Wire>> wires;  ///< [0: small frames, 1...: bulk]
    std::unique_ptr<TcpShaper> shaper;
    std::size_t early_bytes = 0;  ///< of small messages whose exchange is not open here
    std::string end;              ///< what ended one of its connections
    TcpClock::time_point ended_at{};
    bool is_suspected = false;
    std::array<std::array<std::pair<std::uint64_t, Digest>, 2>, kMaxStreams> ready{};  ///< {round + 1, digest}
  };
  using Place = std::pair<std::uint32_t, std::uint64_t>;  // stream, sequence

  Outcome<Begin> begin(TcpLink& link, FrameHeader const& header, Landing& landing) override;
  Outcome<void> collected(TcpLink& link, FrameHeader const& header, std::vector<std::byte>& payload) override;
  void publish(std::uint32_t stream, std::uint64_t round, Digest digest) override;
  [[nodiscard]] bool read(int rank, std::uint32_t stream, std::uint64_t round, Digest& digest) const override;

  [[nodiscard]] int world_size() const { return static_cast<int>(peers_.size()); }
  [[nodiscard]] std::size_t connections() const { return bulk_; }
  [[nodiscard]] TcpLink& bulk_link(int peer, std::size_t index) {
    return peers_[static_cast<std::size_t>(peer)].wires[1 + index]->link;
  }
  [[nodiscard]] bool is_aborted() const { return is_aborted_.load(std::memory_order_relaxed); }
  void send_to_all(FrameHeader const& header, std::span<std::byte const> payload);
  /// An exchange has started: frames that waited for it may be taken.
  void resume();
  /// Asks for news of connections that would block.
  void arm(Wire& wire);
  void end(Wire& wire);
  void suspect(Peer& peer, int rank, std::string const& evidence);
  void suspect_those_gone();
  void forget_closed();
  [[nodiscard]] std::uint64_t first_impossible(std::uint32_t stream) const;
  bool finish_after_abort();
  void close_all();

  std::shared_ptr<TcpMemory> memory_;
  int rank_;
  ViewId view_;
  std::size_t bulk_;
  Suspect suspect_;
  TcpMesh mesh_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<Peer> peers_;
  std::size_t first_peer_ = 0;  // whose connections are served first, in turn

  std::map<Place, std::shared_ptr<TcpExchangeState>> exchanges_;
  std::map<Place, std::vector<std::optional<Announcement>>> early_announcements_;
  std::map<Place, std::shared_ptr<TcpSmallState>> smalls_;
  std::map<Place, std::shared_ptr<TcpSmallState>> early_smalls_;
  std::array<std::uint64_t, kMaxStreams> next_open_{};
  std::array<std::uint64_t, kMaxStreams> next_small_{};
  std::size_t opened_ = 0;

  std::atomic<bool> is_woken_{false};
  std::atomic<bool> is_aborted_{false};
  std::atomic<std::uint64_t> sent_bytes_{0};
  bool is_closed_ = false;
  std::mutex sockets_mutex_;  // closing against abort()
  mutable std::mutex trouble_mutex_;
  std::string trouble_;
};

}  // namespace holdfast::fabrics
