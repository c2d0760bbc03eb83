#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>

#include "fabrics/tcp/tcp_fabric.hpp"

/// A member of a group of two whose peer is whatever the test writes into its connections.
namespace holdfast::fabrics::testing {

using Bytes = std::vector<std::byte>;

inline constexpr ViewId kView{5};
inline constexpr std::size_t kArenaBytes = std::size_t{64} << 20;

inline Bytes frame(FrameHeader header, std::span<std::byte const> payload = {}) {
  header.view = header.view == ViewId{} ? kView : header.view;
  if (header.bytes == 0) header.bytes = static_cast<std::uint32_t>(payload.size());
  Bytes bytes(kFrameHeaderBytes);
  encode(header, std::span<std::byte, kFrameHeaderBytes>(bytes.data(), kFrameHeaderBytes));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

inline FrameHeader header(FrameKind kind, std::uint64_t sequence = 0, std::uint64_t offset = 0,
                          std::uint8_t generation = 0) {
  FrameHeader made;
  made.kind = kind;
  made.sequence = sequence;
  made.offset = offset;
  made.generation = generation;
  return made;
}

class HostilePeer {
 public:
  explicit HostilePeer(std::size_t bulk = 1) {
    using asio::ip::tcp;
    TcpMesh mesh;
    mesh.io = std::make_unique<asio::io_context>();
    mesh.bulk = bulk;
    mesh.streams.resize(2);
    tcp::acceptor acceptor(*mesh.io, {asio::ip::address_v4::loopback(), 0});
    for (std::size_t index = 0; index <= bulk; ++index) {
      connections.emplace_back(io).connect(acceptor.local_endpoint());
      mesh.streams[1].push_back(std::make_unique<net::SecureStream>(acceptor.accept(), net::security::Credentials{},
                                                                    net::security::Role::answerer,
                                                                    net::security::Purpose::data));
    }
    fabric = std::make_unique<TcpFabric>(std::move(mesh),
                                         std::make_shared<TcpMemory>(std::make_shared<PrivateArena>(kArenaBytes),
                                                                     std::make_shared<PrivateArena>(kArenaBytes)),
                                         0, kView, std::nullopt, [this](int rank, std::string const& evidence) {
                                           suspicions.emplace_back(rank, evidence);
                                         });
  }

  /// Drives until `is_met`, or for a while.
  template <typename Condition>
  bool drive(Condition const& is_met, std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    auto const deadline = std::chrono::steady_clock::now() + limit;
    while (!is_met()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      if (!fabric->progress()) fabric->wait(std::chrono::milliseconds(1));
    }
    return true;
  }

  /// On connection 0 (small frames) or 1 and above; errors are the fabric's right.
  void send(std::size_t connection, Bytes const& bytes) {
    std::error_code ignored;
    asio::write(connections[connection], asio::buffer(bytes), ignored);
  }

  asio::io_context io;
  std::vector<asio::ip::tcp::socket> connections;
  std::vector<std::pair<int, std::string>> suspicions;
  std::unique_ptr<TcpFabric> fabric;
};

/// An exchange of `bytes` between the two, of which each owns half; opened, and started when the peer has announced it.
struct OpenExchange {
  OpenExchange(HostilePeer& peer, std::size_t bytes, std::uint64_t sequence = 0) : peer_(peer), bytes_(bytes) {
    contribution = peer.fabric->arena(ArenaUse::contribution)->allocate(bytes);
    result = peer.fabric->arena(ArenaUse::result)->allocate(bytes);
    exchange = peer.fabric->open({0, sequence}, {}, contribution, result);
  }
  void start() {
    ExchangePlan plan;
    plan.scatter = {{0, bytes_ / 2}, {bytes_ / 2, bytes_ - bytes_ / 2}};
    plan.gather = plan.scatter;
    plan.contributes = {true, true};
    plan.chunk_bytes = 1 << 16;
    exchange->start(plan);
  }
  HostilePeer& peer_;
  std::size_t bytes_;
  std::byte* contribution = nullptr;
  std::byte* result = nullptr;
  std::unique_ptr<Exchange> exchange;
};

}  // namespace holdfast::fabrics::testing
