#include "mesh.hpp"

#include <algorithm>
#include <utility>

#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "rendezvous.hpp"

namespace holdfast::net {
namespace {

using asio::ip::tcp;
using protocol::Evidence;
using protocol::Hello;
using protocol::Message;
using protocol::Refused;
using protocol::Welcome;

constexpr std::size_t kMaxStrangers = 64;
constexpr std::ptrdiff_t kMaxNewcomers = 64;
constexpr auto kStrangerLimit = std::chrono::seconds(5);
constexpr auto kRetryPeriod = std::chrono::milliseconds(20);
// After an answer that was no welcome: it will hardly change, and each try costs the other side a line in its log.
constexpr auto kRefusedPeriod = std::chrono::seconds(1);
// A dying process closes its sockets shortly before it counts as ended; waiting this long turns suspicion into fact.
constexpr auto kEndGrace = std::chrono::milliseconds(50);
// A member that was told to go may close before the others have heard, from elsewhere, why.
constexpr auto kNewsGrace = std::chrono::milliseconds(10);
// A connection on which nothing came for this long gives way to a new one.
constexpr auto kSilence = std::chrono::milliseconds(300);
// How often bytes alone count as a sign of life.
constexpr auto kHeardPeriod = std::chrono::milliseconds(50);
// What a process said before its end is there when its end is seen; this long it may take to be read.
constexpr auto kLastWords = std::chrono::milliseconds(2);
// Of the thread that speaks: it runs rarely and shortly.
constexpr int kNiceness = -10;

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

void Mesh::prepare(std::string job_id, protocol::Seat const& self, MeshListener& listener) {
  job_id_ = std::move(job_id);
  self_ = self.member;
  own_contact_ = decode_contact(self.contact).value();
  listener_ = &listener;
}

void Mesh::report_to(std::string const& supervisor, std::string const& join) {
  supervisor_ = std::make_unique<SupervisorLink>(io_, supervisor, job_id_, self_.id, join,
                                                 [this](MemberId member) { on_certificate(member); });
}

void Mesh::request_fence(protocol::FenceRequest const& request) {
  if (supervisor_) supervisor_->request(request);
}

Mesh::Peer& Mesh::peer(MemberId member) {
  auto& found = peers_[member];
  if (!found.grace) {
    found.member.id = member;
    found.grace = std::make_unique<asio::steady_timer>(io_);
  }
  return found;
}

void Mesh::add(protocol::Seat const& seat) {
  auto const id = seat.member.id;
  auto& added = peer(id);
  bool const was_wanted = std::exchange(added.is_wanted, true);
  added.is_newcomer = false;
  if (!added.contact) {
    added.member = seat.member;
    added.contact = decode_contact(seat.contact);
    if (!added.contact) {
      log_error("member " + std::to_string(static_cast<std::uint64_t>(id)) + " gave no address; it cannot be reached");
      return;
    }
    added.watch =
        ProcessWatch::start(io_, self_, seat.member, added.contact->process_start, [this, id] { on_process_end(id); });
  }
  if (!was_wanted && id < self_.id && !added.connection) call(id);
}

void Mesh::connect(Deadline deadline) {
  accept();
  while (!unconnected().empty() && refusal_.empty() && failure_.empty() && !deadline.has_passed())
    io_.run_one_until(deadline.instant());
  if (!refusal_.empty()) throw Error(Errc::mismatch, refusal_);
  if (!failure_.empty()) throw Error(Errc::start_failed, failure_);
  if (auto const missing = unconnected(); !missing.empty())
    throw Error(Errc::start_failed, name_ranks(missing) + " could not be connected" +
                                        (last_error_.empty() ? "" : " (" + last_error_ + ")") +
                                        "; look into their logs, or raise HOLDFAST_START_TIMEOUT_MS");
}

std::string Mesh::connect_to_any(Deadline deadline) {
  accept();
  auto const is_connected = [](auto const& entry) { return entry.second.connection != nullptr; };
  while (std::none_of(peers_.begin(), peers_.end(), is_connected) && refusal_.empty() && !deadline.has_passed())
    io_.run_one_until(deadline.instant());
  if (!refusal_.empty() || std::any_of(peers_.begin(), peers_.end(), is_connected)) return refusal_;
  throw Error(Errc::start_failed, "none of the members could be connected" +
                                      (last_error_.empty() ? "" : " (" + last_error_ + ")") +
                                      "; look into their logs, or raise HOLDFAST_START_TIMEOUT_MS");
}

void Mesh::run(std::string const& thread_name) {
  thread_ = std::jthread([this, thread_name] {
    ::pthread_setname_np(::pthread_self(), thread_name.substr(0, 15).c_str());
    // On an overloaded host a late heartbeat looks like a fault. Without the right to it, nothing changes.
    (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kNiceness);
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

void Mesh::send(MemberId to, Message const& message) {
  auto const found = peers_.find(to);
  if (found != peers_.end() && found->second.connection) found->second.connection->send(message);
}

void Mesh::set_timer(protocol::Instant at) {
  timer_.expires_at(at);
  timer_.async_wait([this](std::error_code error) {
    if (!error) listener_->on_timer();
  });
}

void Mesh::finish(MemberId member) {
  auto const found = peers_.find(member);
  if (found == peers_.end()) return;
  found->second.is_wanted = false;
  found->second.watch.reset();
  if (found->second.connection) return found->second.connection->finish();
  if (!found->second.is_calling) peers_.erase(found);
}

void Mesh::finish_all() {
  std::vector<MemberId> members;
  for (auto const& [id, one] : peers_) members.push_back(id);
  for (auto const member : members) finish(member);
}

void Mesh::dismiss(MemberId newcomer) {
  auto const found = peers_.find(newcomer);
  if (found == peers_.end() || !found->second.is_newcomer) return;
  if (auto const connection = std::exchange(found->second.connection, nullptr)) connection->close();
  peers_.erase(found);
}

std::vector<MemberId> Mesh::open_members() const {
  std::vector<MemberId> open;
  for (auto const& [id, one] : peers_)
    if (one.connection && one.connection->is_open()) open.push_back(id);
  return open;
}

std::vector<int> Mesh::unconnected() const {
  std::vector<int> missing;
  for (auto const& [id, one] : peers_)
    if (one.is_wanted && !one.connection) missing.push_back(static_cast<int>(id));
  return missing;
}

// --- calling members with lower ids ------------------------------------------------------------------------------

void Mesh::call_again(MemberId member, std::string const& reason, std::chrono::milliseconds after) {
  auto& called = peer(member);
  called.is_calling = false;
  if (!called.is_wanted && !called.connection) {
    peers_.erase(member);
    return;
  }
  if (!called.is_wanted || called.has_ended) return;
  last_error_ = "rank " + std::to_string(static_cast<std::uint64_t>(member)) + " at " +
                (called.contact ? called.contact->address : "") + ": " + reason;
  called.is_calling = true;
  auto const pause = std::make_shared<asio::steady_timer>(io_, after);
  pause->async_wait([this, member, pause](std::error_code) {
    auto const found = peers_.find(member);
    if (found == peers_.end()) return;
    found->second.is_calling = false;
    call(member);
  });
}

void Mesh::call(MemberId member) {
  auto& called = peer(member);
  if (!called.is_wanted && !called.connection) {
    peers_.erase(member);
    return;
  }
  if (!called.is_wanted || called.is_calling || called.has_ended) return;
  called.is_calling = true;
  std::error_code error;
  auto const address = asio::ip::make_address(called.contact->address, error);
  if (error) return call_again(member, "not a numeric address", kRefusedPeriod);
  auto const socket = std::make_shared<tcp::socket>(io_);
  socket->async_connect({address, called.contact->port}, [this, member, socket](std::error_code connect_error) {
    if (connect_error) return call_again(member, connect_error.message(), kRetryPeriod);
    auto const connection = std::make_shared<Connection>(std::move(*socket), credentials_, security::Role::caller,
                                                         security::Purpose::control);
    connection->start(
        {[this, member, weak = std::weak_ptr(connection)](Message const& message) {
           auto const self = weak.lock();
           if (auto const* const refused = std::get_if<Refused>(&message))
             refusal_ = "rank " + std::to_string(static_cast<std::uint64_t>(member)) +
                        " refused this member: " + refused->reason;
           else if (self && std::holds_alternative<Welcome>(message))
             establish(member, self);
         },
         [this, member](bool, std::string const& reason) { call_again(member, reason, kRefusedPeriod); }});
    connection->send(Hello{protocol::kProtocolVersion, job_id_, peer(member).contact->token,
                           static_cast<std::int32_t>(self_.id), static_cast<std::int32_t>(member)});
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
  if (auto const* const knock = std::get_if<protocol::Knock>(&message)) {
    auto const answer = listener_->on_knock(*knock);
    if (!answer) {
      strangers_.erase(connection);
      return connection->close();
    }
    connection->send(*answer);
    return connection->finish();
  }
  if (auto const reason = reason_to_refuse(message); !reason.empty()) {
    log_warning("refused a connection: " + reason);
    connection->send(Refused{reason});
    return connection->finish();  // Its time limit closes it if the stranger does not.
  }
  strangers_.erase(connection);
  connection->send(Welcome{});
  MemberId const caller{static_cast<std::uint64_t>(std::get<Hello>(message).from_rank)};
  auto& known = peer(caller);
  known.is_newcomer = !known.is_wanted;
  establish(caller, connection);
}

std::string Mesh::reason_to_refuse(Message const& message) const {
  auto const* const hello = std::get_if<Hello>(&message);
  if (hello == nullptr) return "the first message is not a hello";
  if (hello->protocol_version != protocol::kProtocolVersion)
    return "protocol version " + std::to_string(hello->protocol_version) + " against " +
           std::to_string(protocol::kProtocolVersion) + "; install the same build on every host";
  if (hello->job_id != job_id_) return "job \"" + hello->job_id + "\" against \"" + job_id_ + "\"";
  if (hello->token != own_contact_.token) return "the token is not the one this member published";
  auto const own = static_cast<std::int32_t>(self_.id);
  if (hello->to_rank != own || hello->from_rank <= own)
    return "rank " + std::to_string(hello->from_rank) + " has no business with rank " + std::to_string(own);
  auto const known = peers_.find(MemberId{static_cast<std::uint64_t>(hello->from_rank)});
  if (known == peers_.end() && takes_newcomers_) {
    auto const newcomers =
        std::count_if(peers_.begin(), peers_.end(), [](auto const& entry) { return entry.second.is_newcomer; });
    return newcomers < kMaxNewcomers ? "" : "too many newcomers at once; try again later";
  }
  if (known == peers_.end() || (!known->second.is_wanted && !known->second.is_newcomer))
    return "rank " + std::to_string(hello->from_rank) + " is not a member";
  // One that calls again has lost the connection, though this side may not have noticed: but then it is silent here.
  bool const is_silent = std::chrono::steady_clock::now() - known->second.heard_at > kSilence;
  if (known->second.connection && !is_silent)
    return "rank " + std::to_string(hello->from_rank) + " is connected already";
  return "";
}

// --- connected ---------------------------------------------------------------------------------------------------

void Mesh::establish(MemberId member, std::shared_ptr<Connection> connection) {
  auto& connected = peer(member);
  connected.is_calling = false;
  if (!connected.is_wanted && !connected.is_newcomer) {  // not any more
    connection->close();
    if (!connected.connection) peers_.erase(member);
    return;
  }
  connected.grace->cancel();
  connected.heard_at = std::chrono::steady_clock::now();
  auto const* const identity = connection.get();
  connection->count_into(sent_bytes_);
  connection->hand_over({[this, member](Message message) {
                           peer(member).heard_at = std::chrono::steady_clock::now();
                           listener_->on_message(member, std::move(message));
                         },
                         [this, member, identity](bool is_violation, std::string const& reason) {
                           on_closed(member, identity, is_violation, reason);
                         },
                         [this, member] {
                           auto& heard = peer(member);
                           auto const now = std::chrono::steady_clock::now();
                           if (now - heard.heard_at < kHeardPeriod) return;
                           heard.heard_at = now;
                           listener_->on_heard(member);
                         }});
  // The other side knows that the connection before this one is broken; this side may not have noticed.
  if (auto const old = std::exchange(connected.connection, std::move(connection))) old->close();
  listener_->on_connected(member);
}

void Mesh::on_closed(MemberId member, Connection const* connection, bool is_violation, std::string const& reason) {
  auto& closed = peer(member);
  if (closed.connection.get() != connection) return;
  closed.connection.reset();
  listener_->on_closed();
  if (!closed.is_wanted) {
    bool const was_newcomer = closed.is_newcomer;
    peers_.erase(member);
    if (was_newcomer) listener_->on_connection_lost(member, Evidence::connection_lost, reason);
    return;
  }
  if (is_violation) return listener_->on_connection_lost(member, Evidence::protocol_violation, reason);
  if (closed.has_ended) {
    closed.grace->cancel();
    return listener_->on_connection_lost(member, Evidence::process_ended, "its process is gone");
  }
  if (member < self_.id) call_again(member, reason, kRetryPeriod);
  bool const is_watched = closed.watch != nullptr;
  closed.grace->expires_after(is_watched ? kEndGrace : kNewsGrace);
  closed.grace->async_wait([this, member, is_watched, reason](std::error_code error) {
    if (error) return;
    listener_->on_connection_lost(member, Evidence::connection_lost,
                                  is_watched ? reason + " although its process is alive" : reason);
  });
}

void Mesh::on_certificate(MemberId member) {
  auto const known = peers_.find(member);
  if (known == peers_.end()) return listener_->on_connection_lost(member, Evidence::process_ended, "certified");
  if (!known->second.has_ended) on_process_end(member);
}

void Mesh::on_process_end(MemberId member) {
  auto& ended = peer(member);
  ended.has_ended = true;
  if (!ended.connection) {
    ended.grace->cancel();
    return listener_->on_connection_lost(member, Evidence::process_ended, "its process is gone");
  }
  // What it said before its end is read first: it may have left in good order.
  ended.grace->expires_after(kLastWords);
  ended.grace->async_wait([this, member](std::error_code error) {
    if (!error) listener_->on_connection_lost(member, Evidence::process_ended, "its process is gone");
  });
}

}  // namespace holdfast::net
