#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/steady_timer.hpp>
#include <asio/write.hpp>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "fabrics/registry.hpp"
#include "fabrics/tcp/tcp_fabric.hpp"
#include "net/security/handshake.hpp"

namespace holdfast::fabrics {

namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;
using net::SecureStream;
using net::security::Purpose;
using net::security::Role;

constexpr auto kRetryPeriod = 50ms;
constexpr auto kLookPeriod = 20ms;
constexpr auto kStrangerLimit = 5s;
constexpr std::size_t kMaxStrangers = 256;

/// Where a member listens for data, as the others are told.
struct Address {
  std::uint64_t token = 0;
  std::uint32_t connections = 0;
  std::uint16_t port = 0;
  std::string host;
};

std::vector<std::byte> encode(Address const& address) {
  std::string const text = std::to_string(address.token) + " " + std::to_string(address.connections) + " " +
                           std::to_string(address.port) + " " + address.host;
  auto const* const begin = reinterpret_cast<std::byte const*>(text.data());
  return {begin, begin + text.size()};
}

std::optional<Address> decode(std::vector<std::byte> const& bytes) {
  std::string text(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  std::istringstream words(text);
  Address address;
  if (!(words >> address.token >> address.connections >> address.port >> address.host)) return std::nullopt;
  return address;
}

/// A connection under way: first proven, then greeted. Ends with `done` and an empty reason, or with what went wrong.
class Greeting : public std::enable_shared_from_this<Greeting> {
 public:
  using Bytes = std::array<std::byte, kFrameHeaderBytes>;
  using Heard = std::function<void(Outcome<FrameHeader> const&)>;

  Greeting(asio::io_context& io, tcp::socket socket, net::security::Credentials const& credentials, Role role,
           ViewId view)
      : stream_(std::make_unique<SecureStream>(std::move(socket), credentials, role, Purpose::data)),
        limit_(io),
        view_(view) {}

  /// @param first  what the caller says; nothing: the answerer listens
  void start(std::optional<FrameHeader> const& first, Heard heard) {
    heard_ = std::move(heard);
    auto const self = shared_from_this();
    limit_.expires_after(kStrangerLimit);
    limit_.async_wait([self](std::error_code error) {
      if (!error) self->finish(fail(Errc::pending, "no greeting within its time"));
    });
    stream_->open(self, [this, first](Outcome<void> const& proven) {
      if (!proven) return finish(fail(proven.error()));
      if (first) say(*first);
      hear();
    });
  }

  /// A greeting is far smaller than any socket's buffer, so it goes out whole.
  void say(FrameHeader const& header) {
    Bytes bytes;
    fabrics::encode(header, bytes);
    std::error_code error;
    if (stream_->write_some(bytes, error) != bytes.size()) finish(fail(Errc::member_lost, "cannot be written to"));
  }

  [[nodiscard]] std::unique_ptr<SecureStream> take() { return std::move(stream_); }
  void close() { finish(fail(Errc::aborted, "closed")); }

 private:
  void hear() {
    while (stream_ && heard_) {
      std::error_code error;
      auto const bytes = stream_->read_some(std::span(input_).subspan(have_), error);
      if (error == asio::error::would_block) {
        auto const self = shared_from_this();
        return stream_->socket().async_wait(tcp::socket::wait_read, [self](std::error_code) { self->hear(); });
      }
      if (error) return finish(fail(Errc::member_lost, "closed the connection: " + error.message()));
      have_ += bytes;
      if (have_ == input_.size()) return finish(decode_frame(input_, view_));
    }
  }
  void finish(Outcome<FrameHeader> const& heard) {
    limit_.cancel();
    if (auto const tell = std::exchange(heard_, nullptr)) tell(heard);
  }

  std::unique_ptr<SecureStream> stream_;
  asio::steady_timer limit_;
  ViewId view_;
  Heard heard_;
  Bytes input_{};
  std::size_t have_ = 0;
};

/// Connects one member to all others of the view: the higher rank calls the lower one.
class Connector {
 public:
  explicit Connector(FabricContext const& context)
      : context_(context),
        credentials_(net::security::credentials_of(context.group.config())),
        view_(context.view),
        rank_(context.rank()),
        io_(std::make_unique<asio::io_context>()),
        acceptor_(*io_) {
    std::uint64_t token = 0;
    auto const nonce = net::security::random_nonce();
    std::memcpy(&token, nonce.data(), sizeof token);
    auto const& config = context.group.config();
    auto const connections = config.tcp_connections;
    std::string const host = config.bind_address.empty() ? "127.0.0.1" : config.bind_address;
    std::error_code error;
    tcp::endpoint const endpoint(asio::ip::make_address(host, error), 0);
    if (!error) acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error)
      throw Error(Errc::environment, "tcp fabric: cannot listen on \"" + host + "\" (" + error.message() +
                                         "); HOLDFAST_BIND_ADDRESS must be a numeric address of this host");
    own_ = {token, static_cast<std::uint32_t>(connections), acceptor_.local_endpoint().port(), host};
    streams_.resize(view_.members.size());
    for (std::size_t peer = 0; peer < streams_.size(); ++peer)
      if (static_cast<int>(peer) != rank_) streams_[peer].resize(1 + connections);
  }

  Outcome<TcpMesh> connect() {
    auto const deadline = Deadline::after(context_.group.config().start_timeout);
    auto const everyone = context_.all_gather("tcp", encode(own_));
    if (!everyone) return fail(everyone.error());
    for (auto const& bytes : *everyone) {
      auto address = decode(bytes);
      if (!address) return fail(Errc::corrupt_message, "tcp fabric: an address that cannot be read");
      addresses_.push_back(std::move(*address));
    }
    if (auto const wrong = difference()) return fail(*wrong);
    accept();
    for (int peer = 0; peer < rank_; ++peer)
      for (std::size_t index = 0; index < streams_[static_cast<std::size_t>(peer)].size(); ++index) call(peer, index);
    while (missing_rank() >= 0) {
      if (auto failure = context_.group.failure()) return fail(*failure);
      if (context_.group.view().id != view_.id) return fail(Errc::view_changed, "the view ended while it connected");
      if (!context_.is_wanted()) return fail(Errc::aborted, "the communicator was destroyed while it connected");
      if (deadline.has_passed())
        return fail(Errc::pending, "tcp fabric: rank " + std::to_string(missing_rank()) +
                                       " was not connected within the start timeout" +
                                       (last_error_.empty() ? "" : " (" + last_error_ + ")") +
                                       "; see whether a firewall lets members reach each other on any port");
      io_->run_one_for(kLookPeriod);
    }
    acceptor_.close();
    for (auto const& stranger : std::exchange(strangers_, {})) stranger->close();
    io_->poll();
    TcpMesh mesh;
    mesh.io = std::move(io_);
    mesh.streams = std::move(streams_);
    mesh.bulk = own_.connections;
    return mesh;
  }

 private:
  [[nodiscard]] std::optional<Failure> difference() const {
    for (std::size_t rank = 0; rank < addresses_.size(); ++rank) {
      Failure failure;
      failure.where = "tcp fabric";
      if (addresses_[rank].connections != addresses_[0].connections) {
        failure.code = Errc::mismatch;
        failure.detail = "rank " + std::to_string(rank) + " wants " + std::to_string(addresses_[rank].connections) +
                         " connections per pair, rank 0 " + std::to_string(addresses_[0].connections) +
                         "; give every member the same HOLDFAST_TCP_CONNECTIONS";
        return failure;
      }
      bool const is_elsewhere = view_.members[rank].locality != view_.members[static_cast<std::size_t>(rank_)].locality;
      if (is_elsewhere && addresses_[rank].host.rfind("127.", 0) == 0)
        throw Error(Errc::environment, "tcp fabric: rank " + std::to_string(rank) + " on " + view_.members[rank].host +
                                           " listens on loopback; set HOLDFAST_BIND_ADDRESS there to an address that "
                                           "the others reach");
    }
    return std::nullopt;
  }

  [[nodiscard]] int missing_rank() const {
    for (std::size_t peer = 0; peer < streams_.size(); ++peer)
      for (auto const& stream : streams_[peer])
        if (!stream) return static_cast<int>(peer);
    return -1;
  }

  void call(int peer, std::size_t index) {
    auto const& address = addresses_[static_cast<std::size_t>(peer)];
    auto const retry = [this, peer, index](std::string const& reason) {
      last_error_ = reason;
      auto const pause = std::make_shared<asio::steady_timer>(*io_, kRetryPeriod);
      pause->async_wait([this, peer, index, pause](std::error_code) { call(peer, index); });
    };
    std::error_code error;
    auto const host = asio::ip::make_address(address.host, error);
    if (error) return retry("not a numeric address: " + address.host);
    auto const socket = std::make_shared<tcp::socket>(*io_);
    socket->async_connect({host, address.port}, [this, peer, index, socket, retry](std::error_code connect_error) {
      if (connect_error) return retry(connect_error.message());
      auto const greeting = std::make_shared<Greeting>(*io_, std::move(*socket), credentials_, Role::caller, view_.id);
      FrameHeader hello;
      hello.kind = FrameKind::hello;
      hello.view = view_.id;
      hello.sequence = addresses_[static_cast<std::size_t>(peer)].token;
      hello.offset = static_cast<std::uint64_t>(rank_);
      hello.extra = index;
      greeting->start(hello, [this, peer, index, retry, weak = std::weak_ptr(greeting)](auto const& heard) {
        if (!heard) return retry(heard.error().detail);
        if (heard->kind != FrameKind::welcome) return retry("answers with something else than a welcome");
        streams_[static_cast<std::size_t>(peer)][index] = weak.lock()->take();
      });
    });
  }

  void accept() {
    acceptor_.async_accept([this](std::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error && strangers_.size() < kMaxStrangers) hear_stranger(std::move(socket));
      accept();
    });
  }

  void hear_stranger(tcp::socket socket) {
    auto const greeting = std::make_shared<Greeting>(*io_, std::move(socket), credentials_, Role::answerer, view_.id);
    strangers_.insert(greeting);
    greeting->start(std::nullopt, [this, weak = std::weak_ptr(greeting)](auto const& heard) {
      auto const self = weak.lock();
      strangers_.erase(self);
      auto* const slot = heard ? slot_of(*heard) : nullptr;
      if (slot == nullptr) {
        if (!heard && heard.error().code != Errc::corrupt_message) return;
        return log_warning("tcp fabric: closed a connection of a stranger, who gave " +
                           (heard ? "a greeting that is not for this member" : heard.error().detail));
      }
      FrameHeader welcome;
      welcome.kind = FrameKind::welcome;
      welcome.view = view_.id;
      self->say(welcome);
      *slot = self->take();
    });
  }

  [[nodiscard]] std::unique_ptr<SecureStream>* slot_of(FrameHeader const& hello) {
    if (hello.kind != FrameKind::hello || hello.sequence != own_.token) return nullptr;
    if (hello.offset <= static_cast<std::uint64_t>(rank_) || hello.offset >= streams_.size()) return nullptr;
    auto& streams = streams_[hello.offset];
    if (hello.extra >= streams.size() || streams[hello.extra]) return nullptr;
    return &streams[hello.extra];
  }

  FabricContext const& context_;
  net::security::Credentials credentials_;
  View view_;
  int rank_;
  std::unique_ptr<asio::io_context> io_;
  tcp::acceptor acceptor_;
  Address own_;
  std::vector<Address> addresses_;
  std::vector<std::vector<std::unique_ptr<SecureStream>>> streams_;
  std::set<std::shared_ptr<Greeting>> strangers_;
  std::string last_error_;
};

}  // namespace

Outcome<std::unique_ptr<Fabric>> create_tcp(FabricContext const& context) {
  auto const emulated = parse_emulated_link(context.group.config().emulate_link);
  auto mesh = Connector(context).connect();
  if (!mesh) return fail(mesh.error());
  auto* const previous = dynamic_cast<TcpFabric*>(context.previous);
  // Nobody but this process writes to either, and the fabric of the view before has taken its last frame: both are
  // kept, with the pages touched before.
  auto const arena = [&](ArenaUse use) {
    return previous != nullptr ? std::dynamic_pointer_cast<PrivateArena>(previous->arena(use))
                               : std::make_shared<PrivateArena>(context.arena_bytes);
  };
  return std::make_unique<TcpFabric>(
      std::move(*mesh), std::make_shared<TcpMemory>(arena(ArenaUse::contribution), arena(ArenaUse::result)),
      context.rank(), context.view.id, emulated, context.suspect());
}

}  // namespace holdfast::fabrics
