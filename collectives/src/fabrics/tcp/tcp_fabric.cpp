#include "fabrics/tcp/tcp_fabric.hpp"

#include <algorithm>
#include <cstring>
#include <thread>

#include <asio/post.hpp>
#include <sched.h>
#include <sys/socket.h>

#include <holdfast/runtime/log.hpp>

namespace holdfast::fabrics {

namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;

// Bytes that one connection moves before the others, and the reduction, have their turn.
constexpr std::size_t kTurnBytes = std::size_t{1} << 20;
// A peer that answers at once is met without a sleep.
constexpr auto kLook = 20us;
// A member that leaves or dies is known to the control plane long before; only what that does not see is left.
constexpr auto kGoneGrace = 500ms;
constexpr std::size_t kMostEarlySmalls = kMaxStreams * 2 * kWindow;

std::size_t at(int rank) {
  return static_cast<std::size_t>(rank);
}

}  // namespace

TcpFabric::TcpFabric(TcpMesh mesh, std::shared_ptr<TcpMemory> memory, int rank, ViewId view,
                     std::optional<EmulatedLink> emulated, Suspect suspect)
    : memory_(std::move(memory)),
      rank_(rank),
      view_(view),
      bulk_(mesh.bulk),
      suspect_(std::move(suspect)),
      mesh_(std::move(mesh)),
      work_(asio::make_work_guard(*mesh_.io)),
      peers_(mesh_.streams.size()) {
  mesh_.io->restart();  // it had nothing to do between connecting and now
  for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
    if (emulated) peers_[peer].shaper = std::make_unique<TcpShaper>(*emulated);
    for (std::size_t index = 0; index < mesh_.streams[peer].size(); ++index) {
      auto& wire = peers_[peer].wires.emplace_back(std::make_unique<Wire>(
          *mesh_.streams[peer][index], static_cast<TcpListener&>(*this), static_cast<int>(peer), view_, index == 0));
      wire->link.shape(peers_[peer].shaper.get());
    }
  }
}

TcpFabric::~TcpFabric() {
  abort();
  close_all();
}

// --- opening -----------------------------------------------------------------------------------------------------

std::unique_ptr<Exchange> TcpFabric::open(ExchangeKey key, Announcement const& announcement,
                                          std::byte const* contribution, std::byte* result) {
  if (++opened_ % kWindow == 0) forget_closed();
  auto state = std::make_shared<TcpExchangeState>(*this, key, contribution, result);
  Place const place{key.stream, key.sequence};
  if (auto const early = early_announcements_.find(place); early != early_announcements_.end()) {
    state->announcements = std::move(early->second);
    early_announcements_.erase(early);
  }
  state->announcements[at(rank_)] = announcement;
  next_open_[key.stream] = std::max(next_open_[key.stream], key.sequence + 1);
  exchanges_.insert_or_assign(place, state);

  FrameHeader header;
  header.kind = FrameKind::announcement;
  header.stream = static_cast<std::uint8_t>(key.stream);
  header.view = view_;
  header.sequence = key.sequence;
  header.bytes = sizeof announcement;
  send_to_all(header, announcement);
  return std::make_unique<TcpExchange>(*this, std::move(state));
}

std::unique_ptr<SmallExchange> TcpFabric::open_small(ExchangeKey key) {
  Place const place{key.stream, key.sequence};
  std::shared_ptr<TcpSmallState> state;
  if (auto const early = early_smalls_.find(place); early != early_smalls_.end()) {
    state = std::move(early->second);
    early_smalls_.erase(early);
    for (std::size_t peer = 0; peer < peers_.size(); ++peer)
      if (state->bodies[peer]) peers_[peer].early_bytes -= state->bodies[peer]->size();
  } else {
    state = std::make_shared<TcpSmallState>(world_size());
  }
  next_small_[key.stream] = std::max(next_small_[key.stream], key.sequence + 1);
  smalls_.insert_or_assign(place, state);
  return std::make_unique<TcpSmallExchange>(*this, key, std::move(state));
}

Announcement const* TcpFabric::early_announcement(ExchangeKey key, int rank) {
  auto const early = early_announcements_.find({key.stream, key.sequence});
  if (early == early_announcements_.end() || !early->second[at(rank)]) return nullptr;
  return &*early->second[at(rank)];
}

void TcpFabric::forget_closed() {
  std::erase_if(exchanges_, [](auto const& entry) { return entry.second->is_closed.load(); });
  std::erase_if(smalls_, [](auto const& entry) { return entry.second->is_closed.load(); });
}

void TcpFabric::send_to_all(FrameHeader const& header, std::span<std::byte const> payload) {
  for (int turn = 1; turn < world_size(); ++turn)
    peers_[at((rank_ + turn) % world_size())].wires[0]->link.send(header, payload);
}

void TcpFabric::resume() {
  for (auto const& peer : peers_)
    for (auto const& wire : peer.wires) wire->link.resume();
}

// --- moving ------------------------------------------------------------------------------------------------------

bool TcpFabric::progress() {
  if (is_closed_) return false;
  if (is_aborted()) return finish_after_abort();
  std::size_t moved = 0;
  mesh_.io->poll();
  auto const now = TcpClock::now();
  first_peer_ = (first_peer_ + 1) % peers_.size();
  for (std::size_t turn = 0; turn < peers_.size(); ++turn) {
    auto& peer = peers_[(first_peer_ + turn) % peers_.size()];
    for (auto const& wire : peer.wires) {
      auto& link = wire->link;
      if (wire->is_over) continue;
      if (link.may_write()) {
        auto const sent = link.write(kTurnBytes, now);
        sent_bytes_.fetch_add(sent, std::memory_order_relaxed);
        moved += sent;
      }
      if (link.may_read()) moved += link.read(kTurnBytes);
      if (!link.end().empty()) {
        end(*wire);
      } else {
        arm(*wire);
      }
    }
  }
  return moved > 0;
}

void TcpFabric::arm(Wire& wire) {
  auto& socket = wire.link.stream().socket();
  if (wire.link.is_read_blocked() && !wire.awaits_read) {
    wire.awaits_read = true;
    socket.async_wait(tcp::socket::wait_read, [&wire](std::error_code error) {
      wire.awaits_read = false;
      if (!error) wire.link.unblock_read();
    });
  }
  if (wire.link.is_write_blocked() && !wire.awaits_write) {
    wire.awaits_write = true;
    socket.async_wait(tcp::socket::wait_write, [&wire](std::error_code error) {
      wire.awaits_write = false;
      if (!error) wire.link.unblock_write();
    });
  }
}

void TcpFabric::wait(std::chrono::nanoseconds at_most) {
  auto const start = TcpClock::now();
  auto until = start + std::min<std::chrono::nanoseconds>(at_most, 1h);
  auto now = start;
  do {
    if (is_woken_.exchange(false) || progress()) return;
    ::sched_yield();
    now = TcpClock::now();
  } while (now < until && now - start < kLook);
  suspect_those_gone();
  for (auto const& peer : peers_)
    for (auto const& wire : peer.wires) until = std::min(until, wire->link.due());
  if (now < until && !is_woken_.load()) mesh_.io->run_one_until(until);
  is_woken_.store(false);
}

void TcpFabric::wake() {
  if (!is_woken_.exchange(true)) asio::post(*mesh_.io, [] {});
}

bool TcpFabric::is_busy() const {
  if (is_closed_) return false;
  auto const has_output = [](auto const& wire) { return !wire->is_over && wire->link.has_output(); };
  return std::any_of(peers_.begin(), peers_.end(),
                     [&](Peer const& peer) { return std::any_of(peer.wires.begin(), peer.wires.end(), has_output); });
}

// --- frames ------------------------------------------------------------------------------------------------------

std::uint64_t TcpFabric::first_impossible(std::uint32_t stream) const {
  return std::max(next_open_[stream], next_small_[stream]) + 2 * kWindow;
}

Outcome<TcpListener::Begin> TcpFabric::begin(TcpLink& link, FrameHeader const& header, Landing& landing) {
  switch (header.kind) {
    case FrameKind::announcement:
    case FrameKind::small:
      if (header.sequence >= first_impossible(header.stream))
        return fail(Errc::corrupt_message, "a frame of an exchange that is far ahead");
      return Begin::is_collected;
    case FrameKind::ready:
      return Begin::is_collected;
    case FrameKind::row:
    case FrameKind::result:
      break;
    case FrameKind::hello:
    case FrameKind::welcome:
      return fail(Errc::corrupt_message, "a second greeting");
  }
  if (header.sequence >= next_open_[header.stream])
    return fail(Errc::corrupt_message, "data of an exchange that this member has not announced");
  auto const entry = exchanges_.find({header.stream, header.sequence});
  if (entry == exchanges_.end() || entry->second->is_closed.load(std::memory_order_acquire)) return Begin::lands;
  auto const& state = entry->second;
  if (!state->is_started) return Begin::must_wait;
  auto place = state->place(header, link.peer());
  if (!place) return fail(place.error());
  landing.party = state;
  landing.data = *place;
  return Begin::lands;
}

Outcome<void> TcpFabric::collected(TcpLink& link, FrameHeader const& header, std::vector<std::byte>& payload) {
  auto& peer = peers_[at(link.peer())];
  Place const place{header.stream, header.sequence};
  auto const ranks = peers_.size();
  auto const refuse = [](char const* what) { return fail(Errc::corrupt_message, what); };
  if (header.kind == FrameKind::ready) {
    auto& slot = peer.ready[header.stream][header.sequence % 2];
    std::uint64_t words[2];
    std::memcpy(words, payload.data(), sizeof words);
    slot = {header.sequence + 1, Digest{words[0], words[1]}};
    return {};
  }
  if (header.kind == FrameKind::announcement) {
    std::optional<Announcement>* slot = nullptr;
    if (header.sequence < next_open_[header.stream]) {
      auto const entry = exchanges_.find(place);
      if (entry == exchanges_.end()) return {};
      slot = &entry->second->announcements[at(link.peer())];
    } else {
      auto& early = early_announcements_[place];
      early.resize(ranks);
      slot = &early[at(link.peer())];
    }
    if (slot->has_value()) return refuse("a second announcement of one exchange");
    std::memcpy(slot->emplace().data(), payload.data(), sizeof(Announcement));
    return {};
  }
  auto entry = smalls_.find(place);
  if (entry == smalls_.end()) {
    if (header.sequence < next_small_[header.stream]) return {};  // of one that is over here
    peer.early_bytes += payload.size();
    if (peer.early_bytes > kMostSmallBytes || early_smalls_.size() > kMostEarlySmalls)
      return refuse("more small messages than this member has room for");
    entry = early_smalls_.try_emplace(place, nullptr).first;
    if (!entry->second) entry->second = std::make_shared<TcpSmallState>(world_size());
  }
  auto& body = entry->second->bodies[at(link.peer())];
  if (entry->second->is_closed.load()) return {};
  if (body) return refuse("a second small message of one exchange");
  body = std::move(payload);
  return {};
}

// --- READY -------------------------------------------------------------------------------------------------------

void TcpFabric::publish(std::uint32_t stream, std::uint64_t round, Digest digest) {
  FrameHeader header;
  header.kind = FrameKind::ready;
  header.stream = static_cast<std::uint8_t>(stream);
  header.view = view_;
  header.sequence = round;
  header.bytes = kDigestBytes;
  std::uint64_t const words[2] = {digest.high, digest.low};
  send_to_all(header, std::as_bytes(std::span(words)));
}

bool TcpFabric::read(int rank, std::uint32_t stream, std::uint64_t round, Digest& digest) const {
  // Members differ by at most one committed round, so two words suffice (as in shared memory).
  auto const& [number, word] = peers_[at(rank)].ready[stream][round % 2];
  if (number != round + 1) return false;
  digest = word;
  return true;
}

// --- ends --------------------------------------------------------------------------------------------------------

void TcpFabric::end(Wire& wire) {
  wire.is_over = true;
  auto& peer = peers_[at(wire.link.peer())];
  wire.link.drop_output();
  {
    std::lock_guard const lock(sockets_mutex_);
    wire.link.stream().close();
  }
  if (wire.link.is_violated()) {
    std::string const evidence = "rank " + std::to_string(wire.link.peer()) + " " + wire.link.end();
    log_warning("tcp fabric: closed a data connection: " + evidence);
    suspect(peer, wire.link.peer(), evidence);
  }
  if (peer.end.empty()) {
    peer.end = wire.link.end();
    peer.ended_at = TcpClock::now();
  }
}

void TcpFabric::suspect(Peer& peer, int rank, std::string const& evidence) {
  if (std::exchange(peer.is_suspected, true)) return;
  {
    std::lock_guard const lock(trouble_mutex_);
    if (trouble_.empty()) trouble_ = evidence;
  }
  if (suspect_) suspect_(rank, evidence);
}

void TcpFabric::suspect_those_gone() {
  for (int rank = 0; rank < world_size(); ++rank) {
    auto& peer = peers_[at(rank)];
    if (peer.end.empty() || peer.is_suspected || TcpClock::now() - peer.ended_at < kGoneGrace) continue;
    bool const is_missed = std::any_of(exchanges_.begin(), exchanges_.end(),
                                       [&](auto const& entry) { return entry.second->misses(rank); });
    if (is_missed) suspect(peer, rank, "rank " + std::to_string(rank) + " " + peer.end + " while it was needed");
  }
}

std::string TcpFabric::trouble() const {
  std::lock_guard const lock(trouble_mutex_);
  return trouble_;
}

void TcpFabric::abort() noexcept {
  if (is_aborted_.exchange(true)) return;
  {
    // Rows and results stop at once, whoever drives or not. What was said in small frames, READY above all, still goes
    // out: others may count on it.
    std::lock_guard const lock(sockets_mutex_);
    for (auto const& peer : mesh_.streams)
      for (std::size_t index = 1; index < peer.size(); ++index)
        if (peer[index]->is_connected()) ::shutdown(peer[index]->socket().native_handle(), SHUT_RDWR);
  }
  memory_->results->keep_released();
  wake();
}

bool TcpFabric::finish_after_abort() {
  mesh_.io->poll();
  auto const now = TcpClock::now();
  std::size_t moved = 0;
  bool is_left = false;
  for (auto& peer : peers_) {
    for (std::size_t index = 0; index < peer.wires.size(); ++index) {
      auto& wire = *peer.wires[index];
      if (wire.is_over) continue;
      if (index > 0) {
        end(wire);
        continue;
      }
      if (wire.link.may_write()) moved += wire.link.write(kTurnBytes, now);
      is_left |= wire.link.has_output();
      arm(wire);
    }
  }
  if (!is_left) close_all();
  return moved > 0;
}

void TcpFabric::close_all() {
  if (std::exchange(is_closed_, true)) return;
  std::lock_guard const lock(sockets_mutex_);
  for (auto const& peer : mesh_.streams)
    for (auto const& stream : peer) {
      if (!stream->is_connected()) continue;
      // A socket that is closed with bytes unread resets the connection, which could overtake what we said last.
      std::error_code error;
      std::array<std::byte, 4096> rest;
      stream->socket().shutdown(tcp::socket::shutdown_send, error);
      for (int turn = 0; turn < 256 && !error; ++turn) stream->socket().read_some(asio::buffer(rest), error);
      stream->close();
    }
  suspect_ = nullptr;
}

}  // namespace holdfast::fabrics
