#include "state_donor.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include <pthread.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>

#include "../net/security/handshake.hpp"
#include "../net/wire.hpp"

namespace holdfast::state {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;
using Clock = Deadline::Clock;

constexpr std::size_t kMaxSessions = 8;
constexpr auto kLookPeriod = 50ms;
constexpr auto kRequestLimit = 5s;
// What is handed to the connection at a time: enough to fill it, and little enough that rounds overtake the snapshot.
constexpr std::size_t kInFlightBytes = std::size_t{4} << 20;
constexpr std::size_t kPieceBytes = std::size_t{256} << 10;

std::int64_t number(auto value) {
  return static_cast<std::int64_t>(value);
}

double milliseconds_since(Clock::time_point then) {
  return std::chrono::duration<double, std::milli>(Clock::now() - then).count();
}

}  // namespace

/// One newcomer. What other threads touch is under the donor's mutex.
struct StateDonor::Session {
  explicit Session(std::unique_ptr<StateLink> connected) : link(std::move(connected)) {}

  std::unique_ptr<StateLink> link;
  std::int64_t member = -1;
  Clock::time_point began = Clock::now();

  // Under the mutex.
  bool wants_copy = false;
  bool wants_digest = false;
  bool follows = false;
  bool is_given_up = false;
  bool is_over = false;
  std::shared_ptr<StateCopy const> copy;
  std::deque<std::shared_ptr<RoundRecord const>> rounds;  ///< not sent yet
  std::uint64_t waiting_bytes = 0;                        ///< of those
  std::optional<std::pair<Positions, Digest>> digest;

  // Of the session's thread.
  bool is_announced = false;
  std::size_t part = 0;
  std::uint64_t offset = 0;
  bool is_copied = false;
  Clock::time_point copy_began{};
  std::uint64_t copied_bytes = 0;
  std::uint64_t unreplayed_bytes = 0;  ///< sent, and not in the newcomer's state yet
  std::deque<std::pair<RoundId, std::uint64_t>> unreplayed;
  std::uint64_t rounds_sent = 0;
  std::uint64_t bytes_sent = 0;

  std::jthread thread;  // last
};

StateDonor::StateDonor(Group group, Sizes sizes)
    : group_(std::move(group)),
      sizes_(std::move(sizes)),
      credentials_(net::security::credentials_of(group_.config())),
      acceptor_(io_) {
  auto const nonce = net::security::random_nonce();
  std::memcpy(&token_, nonce.data(), sizeof token_);
  auto const& address = group_.config().bind_address;
  std::string const host = address.empty() ? "127.0.0.1" : address;
  std::error_code error;
  tcp::endpoint const endpoint(asio::ip::make_address(host, error), 0);
  if (!error) acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error)
    throw Error(Errc::environment, "cannot listen on \"" + host + "\" for newcomers (" + error.message() +
                                       "); HOLDFAST_BIND_ADDRESS must be a numeric address of this host");
  group_.publish(kKey, {{"address", host},
                        {"port", std::to_string(acceptor_.local_endpoint().port())},
                        {"token", std::to_string(token_)}});
  thread_ = std::jthread([this] {
    ::pthread_setname_np(::pthread_self(), "holdfast-donor");
    accept();
    while (!is_stopping()) {
      io_.restart();
      io_.run_for(kLookPeriod);
      std::list<std::unique_ptr<Session>> over;
      std::lock_guard const lock(mutex_);
      for (auto session = sessions_.begin(); session != sessions_.end();) {
        auto const next = std::next(session);
        if ((*session)->is_over) over.splice(over.end(), sessions_, session);
        session = next;
      }
    }
  });
}

StateDonor::~StateDonor() {
  is_stopping_.store(true);
  thread_.join();
  std::list<std::unique_ptr<Session>> sessions;
  {
    std::lock_guard const lock(mutex_);
    sessions.swap(sessions_);
    for (auto const& session : sessions) session->link->wake();
  }
  changed_.notify_all();
}

void StateDonor::accept() {
  acceptor_.async_accept([this](std::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error) {
      auto const protocol = acceptor_.local_endpoint().protocol();
      auto const descriptor = socket.release(error);
      std::lock_guard const lock(mutex_);
      if (!error && sessions_.size() < kMaxSessions) {
        try {
          auto& session = *sessions_.emplace_back(std::make_unique<Session>(
              std::make_unique<StateLink>(descriptor, protocol, credentials_, net::security::Role::answerer)));
          session.thread = std::jthread([this, &session] { serve(session); });
        } catch (Error const& trouble) {
          log_warning(trouble.what());
        }
      } else if (!error) {
        tcp::socket(io_, protocol, descriptor).close(error);
      }
    }
    accept();
  });
}

void StateDonor::serve(Session& session) {
  ::pthread_setname_np(::pthread_self(), "holdfast-gives");
  auto const ended = converse(session);
  end(session, ended ? "the newcomer has what it needs" : ended.error().detail);
}

void StateDonor::end(Session& session, std::string const& reason) {
  {
    std::lock_guard const lock(mutex_);
    if (session.wants_copy) copies_wanted_.fetch_sub(1);
    if (session.wants_digest) digests_wanted_.fetch_sub(1);
    if (session.follows) followers_.fetch_sub(1);
    session.wants_copy = session.wants_digest = session.follows = false;
    session.rounds.clear();
    session.waiting_bytes = 0;
    session.copy.reset();
    session.is_over = true;
  }
  changed_.notify_all();
  if (session.member < 0) return;
  log_debug("stopped giving state to member " + std::to_string(session.member) + ": " + reason);
  group_.events().record("state_given", {{"member", session.member},
                                         {"bytes", number(session.bytes_sent)},
                                         {"rounds", number(session.rounds_sent)},
                                         {"milliseconds", milliseconds_since(session.began)},
                                         {"end", reason}});
}

Outcome<void> StateDonor::converse(Session& session) {
  auto const is_wanted = [this] { return !is_stopping(); };
  if (auto proven = session.link->open(Deadline::after(kRequestLimit), is_wanted); !proven) return proven;
  auto const request_limit = Deadline::after(kRequestLimit);
  auto const handler = [&](Frame const& frame, std::span<std::byte const> body) {
    return on_frame(session, frame, body);
  };
  while (is_wanted()) {
    if (session.member < 0 && request_limit.has_passed()) return fail(Errc::pending, "it asks for nothing");
    {
      std::lock_guard const lock(mutex_);
      if (session.is_given_up) return fail(Errc::pending, "it is too slow; raise join_rate or join_buffer_bytes");
    }
    bool const pushed = push_more(session);
    if (auto moved = session.link->turn(pushed ? 0ns : std::chrono::nanoseconds(5ms), handler); !moved) {
      // It hangs up once it is a member.
      bool const has_gone_in = group_.view().rank_of(MemberId{static_cast<std::uint64_t>(session.member)}).has_value();
      if (session.member >= 0 && has_gone_in) return {};
      return moved;
    }
  }
  return {};
}

Outcome<void> StateDonor::on_frame(Session& session, Frame const& frame, std::span<std::byte const> body) {
  if (session.member < 0) {
    std::uint64_t token = 0;
    if (frame.kind != FrameKind::request || body.size() != sizeof token)
      return fail(Errc::corrupt_message, "the first frame is no request");
    std::memcpy(&token, body.data(), sizeof token);
    if (token != token_) return fail(Errc::corrupt_message, "the token is not the one this member published");
    session.member = static_cast<std::int64_t>(frame.round);
    group_.events().record("state_asked", {{"member", session.member}});
    prepare_spare();
    std::lock_guard const lock(mutex_);
    session.wants_copy = true;
    copies_wanted_.fetch_add(1);
    return {};
  }
  switch (frame.kind) {
    case FrameKind::replayed:
      while (!session.unreplayed.empty()) {
        auto const [round, bytes] = session.unreplayed.front();
        session.unreplayed.pop_front();
        session.unreplayed_bytes -= bytes;
        if (round == RoundId{frame.stream, frame.round}) break;
      }
      return {};
    case FrameKind::verify: {
      std::lock_guard const lock(mutex_);
      if (!std::exchange(session.wants_digest, true)) digests_wanted_.fetch_add(1);
      return {};
    }
    default:
      return fail(Errc::corrupt_message, "a frame that only donors send");
  }
}

void StateDonor::prepare_spare() {
  {
    std::lock_guard const lock(mutex_);
    if (!spare_.empty()) return;
  }
  StateSnapshot spare;
  for (auto const& [name, bytes] : sizes_) spare.push_back({name, {}, {}, std::vector<std::byte>(bytes)});
  std::lock_guard const lock(mutex_);
  spare_ = std::move(spare);
}

bool StateDonor::push_more(Session& session) {
  auto& link = *session.link;
  auto const& config = group_.config();
  bool pushed = false;
  if (link.unsent_bytes() >= kInFlightBytes) return false;
  std::unique_lock lock(mutex_);
  auto const copy = session.copy;
  if (!copy) return false;
  if (!session.is_announced) {
    lock.unlock();
    session.is_announced = true;
    session.copy_began = Clock::now();
    Group::Fields fields;
    auto const digest = digest_of(copy->parts);
    fields.emplace_back("digest", std::to_string(digest.high) + " " + std::to_string(digest.low));
    for (auto const& position : copy->positions)
      fields.emplace_back(
          "round", std::to_string(static_cast<std::uint32_t>(position.stream)) + " " + std::to_string(position.number));
    fields.emplace_back("rules", std::to_string(copy->rules.size()));
    for (auto const& part : copy->parts) {
      std::string layout = part.layout.dtype + " " + std::to_string(part.bytes.size());
      for (auto const extent : part.layout.shape) layout += " " + std::to_string(extent);
      fields.emplace_back("part", part.name);
      fields.emplace_back("layout", std::move(layout));
    }
    auto const body = std::make_shared<std::vector<std::byte>>(net::encode(fields));
    Frame frame;
    frame.kind = FrameKind::manifest;
    frame.total = body->size();
    // In pieces, since a model has thousands of parts.
    do {
      auto const bytes = std::min<std::uint64_t>(kPieceBytes, body->size() - frame.offset);
      link.push(frame, std::span(*body).subspan(frame.offset, bytes), body);
      frame.offset += bytes;
    } while (frame.offset < body->size());
    return true;
  }

  // Rounds first: the longer they wait, the more there are.
  while (!session.rounds.empty() && link.unsent_bytes() < kInFlightBytes) {
    auto const record = session.rounds.front();
    if (session.unreplayed_bytes > 0 && session.unreplayed_bytes + record->bytes() > config.join_buffer_bytes) break;
    session.rounds.pop_front();
    session.waiting_bytes -= record->bytes();
    lock.unlock();
    changed_.notify_all();
    Frame frame;
    frame.kind = FrameKind::round;
    frame.flag = record->has_results;
    frame.index = static_cast<std::uint32_t>(record->results.size());
    frame.stream = record->round.stream;
    frame.round = record->round.number;
    link.push(frame);
    for (std::size_t index = 0; index < record->results.size(); ++index) {
      auto const& result = record->results[index];
      Frame piece;
      piece.kind = FrameKind::result;
      piece.flag = result.is_center;
      piece.dtype = result.dtype;
      piece.index = static_cast<std::uint32_t>(index);
      piece.total = result.size;
      do {
        auto const bytes = std::min<std::uint64_t>(kMaxBodyBytes, result.size - piece.offset);
        link.push(piece, std::span<std::byte const>(result.bytes.get() + piece.offset, bytes), record);
        piece.offset += bytes;
      } while (piece.offset < result.size);
    }
    session.unreplayed.emplace_back(record->round, record->bytes());
    session.unreplayed_bytes += record->bytes();
    session.bytes_sent += record->bytes();
    ++session.rounds_sent;
    pushed = true;
    lock.lock();
  }
  auto digest = std::exchange(session.digest, std::nullopt);
  lock.unlock();
  if (digest) {
    auto const body = std::make_shared<std::vector<std::byte>>(encode(digest->first));
    Frame frame;
    frame.kind = FrameKind::digest;
    frame.offset = digest->second.high;
    frame.total = digest->second.low;
    link.push(frame, *body, body);
    pushed = true;
  }

  auto const parts = copy->parts.size() + 1;
  while (!session.is_copied && link.unsent_bytes() < kInFlightBytes) {
    auto const seconds = milliseconds_since(session.copy_began) / 1e3;
    if (config.join_rate > 0 &&
        static_cast<double>(session.copied_bytes) > seconds * static_cast<double>(config.join_rate))
      break;
    std::span<std::byte const> const whole =
        session.part < copy->parts.size() ? copy->parts[session.part].bytes : copy->rules;
    auto const bytes = std::min<std::uint64_t>(kPieceBytes, whole.size() - session.offset);
    Frame frame;
    frame.kind = FrameKind::piece;
    frame.index = static_cast<std::uint32_t>(session.part);
    frame.offset = session.offset;
    frame.total = whole.size();
    if (bytes > 0) link.push(frame, whole.subspan(session.offset, bytes), copy);
    session.offset += bytes;
    session.copied_bytes += bytes;
    session.bytes_sent += bytes;
    pushed = true;
    if (session.offset < whole.size()) continue;
    session.offset = 0;
    if (++session.part < parts) continue;
    session.is_copied = true;
    Frame last;
    last.kind = FrameKind::snapshot_end;
    link.push(last);
    group_.events().record("state_sent", {{"member", session.member},
                                          {"bytes", number(session.copied_bytes)},
                                          {"milliseconds", milliseconds_since(session.copy_began)}});
  }
  return pushed;
}

// --- from the training thread ------------------------------------------------------------------------------------

StateSnapshot StateDonor::take_spare() {
  std::lock_guard const lock(mutex_);
  return std::exchange(spare_, {});
}

void StateDonor::give_copy(std::shared_ptr<StateCopy const> const& copy) {
  std::lock_guard const lock(mutex_);
  for (auto const& session : sessions_) {
    if (!session->wants_copy) continue;
    session->wants_copy = false;
    copies_wanted_.fetch_sub(1);
    session->copy = copy;
    session->follows = true;
    followers_.fetch_add(1);
    session->link->wake();
  }
}

void StateDonor::give_digest(Positions const& positions, Digest digest) {
  std::lock_guard const lock(mutex_);
  for (auto const& session : sessions_) {
    if (!session->wants_digest) continue;
    session->wants_digest = false;
    digests_wanted_.fetch_sub(1);
    session->digest.emplace(positions, digest);
    session->link->wake();
  }
}

void StateDonor::add(std::shared_ptr<RoundRecord const> const& record) {
  std::lock_guard const lock(mutex_);
  for (auto const& session : sessions_) {
    if (!session->follows) continue;
    session->rounds.push_back(record);
    session->waiting_bytes += record->bytes();
    session->link->wake();
  }
}

void StateDonor::hold_up(std::chrono::nanoseconds at_most) {
  if (!wants_rounds()) return;
  auto const most = group_.config().join_buffer_bytes;
  auto const began = Clock::now();
  std::unique_lock lock(mutex_);
  auto const is_behind = [&](auto const& session) { return session->follows && session->waiting_bytes > most; };
  auto const is_well = [&] { return std::none_of(sessions_.begin(), sessions_.end(), is_behind); };
  if (is_well()) return;
  bool const caught_up = changed_.wait_for(lock, at_most, is_well);
  group_.events().record("held_up", {{"milliseconds", milliseconds_since(began)}, {"caught_up", caught_up}});
  for (auto const& session : sessions_)
    if (session->follows && session->waiting_bytes / 2 > most) session->is_given_up = true;
}

}  // namespace holdfast::state
