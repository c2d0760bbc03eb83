#include "mesh.hpp"

#include <utility>

#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <pthread.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "rendezvous.hpp"

namespace holdfast::net {
namespace {

using asio::ip::tcp;
using protocol::Hello;
using protocol::Message;
using protocol::Refused;
using protocol::Welcome;
using Evidence = protocol::Core::Evidence;

constexpr std::size_t kMaxStrangers = 64;
constexpr auto kStrangerLimit = std::chrono::seconds(5);
constexpr auto kRetryPeriod = std::chrono::milliseconds(20);
// After an answer that was no welcome: it will hardly change, and each try costs the other side a line in its log.
constexpr auto kRefusedPeriod = std::chrono::seconds(1);
// A dying process closes its sockets shortly before it counts as ended; waiting this long turns suspicion into fact.
constexpr auto kEndGrace = std::chrono::milliseconds(50);

}  // namespace

Mesh::Mesh(std::string const& bind_address, security::Credentials credentials)
    : credentials_(std::move(credentials)), acceptor_(io_), timer_(io_) {
  std::error_code error;
  auto const address = asio::ip::make_address(bind_address, error);
  tcp::endpoint const endpoint(address, 0);
  if (!error) acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error)
    throw Error(Errc::environment, "cannot listen on \"" + bind_address + "\" (" + error.message() +
                                       "); HOLDFAST_BIND_ADDRESS must be a numeric address of this host");
}

Mesh::~Mesh() {
  stop();
}

std::string Mesh::address() const {
  return acceptor_.local_endpoint().address().to_string();
}
std::uint16_t Mesh::port() const {
  return acceptor_.local_endpoint().port();
}

void Mesh::prepare(std::vector<Record> records, int self, MeshListener& listener) {
  records_ = std::move(records);
  self_ = self;
  listener_ = &listener;
  peers_.resize(records_.size());
}

void Mesh::connect(Deadline deadline) {
  accept();
  for (int rank = 0; rank < self_; ++rank) call(rank);
  while (!unconnected().empty() && refusal_.empty() && failure_.empty() && !deadline.has_passed())
    io_.run_one_until(deadline.instant());
  if (!refusal_.empty()) throw Error(Errc::mismatch, refusal_);
  if (!failure_.empty()) throw Error(Errc::start_failed, failure_);
  if (auto const missing = unconnected(); !missing.empty())
    throw Error(Errc::start_failed, name_ranks(missing) + " could not be connected" +
                                        (last_error_.empty() ? "" : " (" + last_error_ + ")") +
                                        "; look into their logs, or raise HOLDFAST_START_TIMEOUT_MS");
}

void Mesh::run(std::string const& thread_name) {
  thread_ = std::jthread([this, thread_name] {
    ::pthread_setname_np(::pthread_self(), thread_name.substr(0, 15).c_str());
    auto const guard = asio::make_work_guard(io_);
    io_.run();
  });
}

void Mesh::stop() {
  io_.stop();
  if (thread_.joinable()) thread_.join();
}

bool Mesh::is_protocol_thread() const {
  return std::this_thread::get_id() == thread_.get_id();
}

void Mesh::post(std::function<void()> work) {
  asio::post(io_, std::move(work));
}

void Mesh::send(int rank, Message const& message) {
  auto const& connection = peers_[static_cast<std::size_t>(rank)].connection;
  if (connection) connection->send(message);
}

void Mesh::set_timer(protocol::Instant at) {
  timer_.expires_at(at);
  timer_.async_wait([this](std::error_code error) {
    if (!error) listener_->on_timer();
  });
}

void Mesh::finish(int rank) {
  auto const& connection = peers_[static_cast<std::size_t>(rank)].connection;
  if (connection) connection->finish();
}

std::vector<int> Mesh::open_ranks() const {
  std::vector<int> open;
  for (int rank = 0; rank < static_cast<int>(peers_.size()); ++rank) {
    auto const& connection = peers_[static_cast<std::size_t>(rank)].connection;
    if (connection && connection->is_open()) open.push_back(rank);
  }
  return open;
}

std::vector<int> Mesh::unconnected() const {
  std::vector<int> missing;
  for (int rank = 0; rank < static_cast<int>(peers_.size()); ++rank)
    if (rank != self_ && !peers_[static_cast<std::size_t>(rank)].connection) missing.push_back(rank);
  return missing;
}

// --- calling the lower ranks -------------------------------------------------------------------------------------

void Mesh::call(int rank) {
  auto const& record = records_[static_cast<std::size_t>(rank)];
  auto const socket = std::make_shared<tcp::socket>(io_);
  auto const retry = [this, rank](std::string const& reason, std::chrono::milliseconds after = kRetryPeriod) {
    last_error_ =
        "rank " + std::to_string(rank) + " at " + records_[static_cast<std::size_t>(rank)].address + ": " + reason;
    auto const pause = std::make_shared<asio::steady_timer>(io_, after);
    pause->async_wait([this, rank, pause](std::error_code) { call(rank); });
  };
  std::error_code error;
  auto const address = asio::ip::make_address(record.address, error);
  if (error) return retry("not a numeric address");
  socket->async_connect({address, record.port}, [this, rank, socket, retry](std::error_code connect_error) {
    if (connect_error) return retry(connect_error.message());
    auto const connection = std::make_shared<Connection>(std::move(*socket), credentials_, security::Role::caller,
                                                         security::Purpose::control);
    connection->start({[this, rank, weak = std::weak_ptr(connection)](Message const& message) {
                         auto const self = weak.lock();
                         if (auto const* const refused = std::get_if<Refused>(&message))
                           refusal_ = "rank " + std::to_string(rank) + " refused this member: " + refused->reason;
                         else if (self && std::holds_alternative<Welcome>(message))
                           establish(rank, self);
                       },
                       [retry](bool, std::string const& reason) { retry(reason, kRefusedPeriod); }});
    auto const& callee = records_[static_cast<std::size_t>(rank)];
    connection->send(Hello{protocol::kProtocolVersion, callee.job_id, callee.token, self_, rank});
  });
}

// --- being called ------------------------------------------------------------------------------------------------

void Mesh::accept() {
  acceptor_.async_accept([this](std::error_code error, tcp::socket socket) {
    if (!error && strangers_.size() < kMaxStrangers) hear_stranger(std::move(socket));
    if (error != asio::error::operation_aborted) accept();
  });
}

void Mesh::hear_stranger(tcp::socket socket) {
  auto const connection = std::make_shared<Connection>(std::move(socket), credentials_, security::Role::answerer,
                                                       security::Purpose::control);
  std::weak_ptr<Connection> const weak = connection;
  strangers_.insert(connection);
  auto const limit = std::make_shared<asio::steady_timer>(io_, kStrangerLimit);
  limit->async_wait([this, weak, limit](std::error_code) {
    auto const self = weak.lock();
    if (self && strangers_.erase(self) > 0) self->close();
  });
  connection->start({[this, weak](Message const& message) {
                       if (auto const self = weak.lock()) answer(self, message);
                     },
                     [this, weak](bool is_violation, std::string const& reason) {
                       if (auto const self = weak.lock()) strangers_.erase(self);
                       if (is_violation) log_warning("closed a connection of a stranger, who gave " + reason);
                     }});
}

void Mesh::answer(std::shared_ptr<Connection> const& connection, Message const& message) {
  if (auto const reason = reason_to_refuse(message); !reason.empty()) {
    log_warning("refused a connection: " + reason);
    connection->send(Refused{reason});
    return connection->finish();  // Its time limit closes it if the stranger does not.
  }
  strangers_.erase(connection);
  connection->send(Welcome{});
  establish(std::get<Hello>(message).from_rank, connection);
}

std::string Mesh::reason_to_refuse(Message const& message) const {
  auto const* const hello = std::get_if<Hello>(&message);
  auto const& self = records_[static_cast<std::size_t>(self_)];
  if (hello == nullptr) return "the first message is not a hello";
  if (hello->protocol_version != protocol::kProtocolVersion)
    return "protocol version " + std::to_string(hello->protocol_version) + " against " +
           std::to_string(protocol::kProtocolVersion) + "; install the same build on every host";
  if (hello->job_id != self.job_id) return "job \"" + hello->job_id + "\" against \"" + self.job_id + "\"";
  if (hello->token != self.token) return "the token is not the one this member published";
  if (hello->to_rank != self_ || hello->from_rank <= self_ || hello->from_rank >= static_cast<int>(peers_.size()))
    return "rank " + std::to_string(hello->from_rank) + " has no business with rank " + std::to_string(self_);
  if (peers_[static_cast<std::size_t>(hello->from_rank)].connection)
    return "rank " + std::to_string(hello->from_rank) + " is connected already";
  return "";
}

// --- connected ---------------------------------------------------------------------------------------------------

void Mesh::establish(int rank, std::shared_ptr<Connection> connection) {
  auto& peer = peers_[static_cast<std::size_t>(rank)];
  connection->hand_over(
      {[this, rank](Message message) { listener_->on_message(rank, std::move(message)); },
       [this, rank](bool is_violation, std::string const& reason) { on_closed(rank, is_violation, reason); }});
  peer.connection = std::move(connection);
  peer.grace = std::make_unique<asio::steady_timer>(io_);
  peer.watch = ProcessWatch::start(io_, records_[static_cast<std::size_t>(self_)],
                                   records_[static_cast<std::size_t>(rank)], [this, rank] { on_process_end(rank); });
  listener_->on_connected(rank);
}

void Mesh::on_closed(int rank, bool is_violation, std::string const& reason) {
  auto& peer = peers_[static_cast<std::size_t>(rank)];
  listener_->on_closed();
  if (is_violation) return report_lost(rank, Evidence::protocol_violation, reason);
  if (peer.has_ended) return report_lost(rank, Evidence::process_ended, "its process is gone");
  if (!peer.watch) return report_lost(rank, Evidence::connection_lost, reason);
  peer.grace->expires_after(kEndGrace);
  peer.grace->async_wait([this, rank, reason](std::error_code error) {
    if (!error) report_lost(rank, Evidence::connection_lost, reason + " although its process is alive");
  });
}

void Mesh::on_process_end(int rank) {
  auto& peer = peers_[static_cast<std::size_t>(rank)];
  peer.has_ended = true;
  if (!peer.connection->is_open()) return report_lost(rank, Evidence::process_ended, "its process is gone");
  // What it said before its end is read first: it may have left in good order.
  peer.grace->expires_after(kEndGrace);
  peer.grace->async_wait([this, rank](std::error_code error) {
    if (!error) report_lost(rank, Evidence::process_ended, "its process is gone");
  });
}

void Mesh::report_lost(int rank, Evidence evidence, std::string const& what) {
  auto& peer = peers_[static_cast<std::size_t>(rank)];
  if (std::exchange(peer.is_reported, true)) return;
  peer.grace->cancel();
  listener_->on_connection_lost(rank, evidence, what);
}

}  // namespace holdfast::net
