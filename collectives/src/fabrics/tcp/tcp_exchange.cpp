#include "fabrics/tcp/tcp_exchange.hpp"

#include <algorithm>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "fabrics/tcp/tcp_fabric.hpp"

namespace holdfast::fabrics {

namespace {

std::size_t at(int rank) {
  return static_cast<std::size_t>(rank);
}

}  // namespace

// --- arrivals ----------------------------------------------------------------------------------------------------

TcpArrival::TcpArrival(std::byte* data, std::size_t bytes)
    : data_(data), bytes_(bytes), expected_((bytes + kStripeBytes - 1) / kStripeBytes), landed_(expected_.size()) {}

std::size_t TcpArrival::stripe_bytes(std::size_t stripe) const {
  return std::min(kStripeBytes, bytes_ - stripe * kStripeBytes);
}

bool TcpArrival::expect(std::uint64_t offset, std::size_t bytes) {
  if (offset >= bytes_) return false;
  std::size_t const stripe = offset / kStripeBytes;
  std::size_t const begin = offset % kStripeBytes;
  if (begin != expected_[stripe] || bytes > stripe_bytes(stripe) - begin) return false;
  expected_[stripe] += static_cast<std::uint32_t>(bytes);
  return true;
}

void TcpArrival::landed(std::uint64_t offset, std::size_t bytes) {
  landed_[offset / kStripeBytes] += static_cast<std::uint32_t>(bytes);
  while (whole_stripes_ < landed_.size() && landed_[whole_stripes_] == stripe_bytes(whole_stripes_)) ++whole_stripes_;
}

std::size_t TcpArrival::arrived() const {
  if (whole_stripes_ == landed_.size()) return bytes_;
  return whole_stripes_ * kStripeBytes + landed_[whole_stripes_];
}

bool TcpArrival::has_stripe(std::uint64_t offset) const {
  std::size_t const stripe = offset / kStripeBytes;
  return offset < bytes_ && landed_[stripe] == stripe_bytes(stripe);
}

// --- state -------------------------------------------------------------------------------------------------------

TcpExchangeState::TcpExchangeState(TcpFabric& fabric, ExchangeKey exchange, std::byte const* own_contribution,
                                   std::byte* own_memory)
    : memory(fabric.memory_),
      key(exchange),
      rank(fabric.rank_),
      ranks(fabric.world_size()),
      contribution(own_contribution),
      result(own_memory),
      announcements(at(ranks)),
      hashes(at(ranks)) {}

bool TcpExchangeState::receives_from(int owner) const {
  return plan.gathers && owner != rank && plan.gather[at(owner)].bytes > 0;
}

bool TcpExchangeState::sends_results() const {
  return plan.gathers && plan.gather[at(rank)].bytes > 0;
}

std::byte* TcpExchangeState::own_result() const {
  return result + plan.gather[at(rank)].begin;
}

Outcome<std::byte*> TcpExchangeState::place(FrameHeader const& header, int peer) {
  bool const is_row = header.kind == FrameKind::row;
  auto& arrival = is_row ? row_arrivals[at(peer)] : result_arrivals[at(header.generation - 1)][at(peer)];
  // A second generation overwrites the first, so of each stripe the first must be here.
  if (!is_row && header.generation == 2 && !result_arrivals[0][at(peer)].has_stripe(header.offset))
    return fail(Errc::corrupt_message, "a second result before the first");
  if (!arrival.expect(header.offset, header.bytes))
    return fail(Errc::corrupt_message, std::string(is_row ? "part of a row" : "part of a result") +
                                           " that is not its next: " + std::to_string(header.bytes) + " bytes at " +
                                           std::to_string(header.offset) + " of " + std::to_string(arrival.bytes()));
  if (!is_row && header.offset + header.bytes == arrival.bytes()) hashes[at(peer)] = header.extra;
  return arrival.at(header.offset);
}

void TcpExchangeState::received(FrameHeader const& header, int peer, std::size_t bytes) {
  auto& arrival =
      header.kind == FrameKind::row ? row_arrivals[at(peer)] : result_arrivals[at(header.generation - 1)][at(peer)];
  arrival.landed(header.offset, bytes);
}

bool TcpExchangeState::misses(int peer) const {
  if (is_closed.load()) return false;
  if (!is_started) return !announcements[at(peer)].has_value();
  return !row_arrivals[at(peer)].is_complete() || !result_arrivals[0][at(peer)].is_complete();
}

// --- exchange ----------------------------------------------------------------------------------------------------

TcpExchange::TcpExchange(TcpFabric& fabric, std::shared_ptr<TcpExchangeState> state)
    : fabric_(fabric), state_(std::move(state)) {}

TcpExchange::~TcpExchange() {
  state_->is_closed.store(true);
}

bool TcpExchange::announced(int rank) const {
  return state_->announcements[at(rank)].has_value();
}

Announcement const& TcpExchange::announcement(int rank) const {
  return *state_->announcements[at(rank)];
}

std::vector<TcpSending> TcpExchange::sendings(FrameKind kind, int generation) const {
  TcpExchangeState& state = *state_;
  std::size_t const step = fabric_.connections();
  std::vector<TcpSending> sendings(at(state.ranks) * step);
  for (int peer = 0; peer < state.ranks; ++peer)
    for (std::size_t first = 0; first < step; ++first) {
      auto& sending = sendings[at(peer) * step + first];
      sending.party = state_.get();
      sending.header.kind = kind;
      sending.header.generation = static_cast<std::uint8_t>(generation);
      sending.header.stream = static_cast<std::uint8_t>(state.key.stream);
      sending.header.view = fabric_.view_;
      sending.header.sequence = state.key.sequence;
      sending.first = first;
      sending.step = step;
      sending.position = first * kStripeBytes;
    }
  return sendings;
}

void TcpExchange::start(ExchangePlan const& plan) {
  TcpExchangeState& state = *state_;
  state.plan = plan;
  bool const scatters = !plan.scatter.empty();
  std::size_t const step = fabric_.connections();
  state.rows.resize(at(state.ranks));
  state.versions.resize(at(state.ranks));
  state.row_arrivals.resize(at(state.ranks));
  for (auto& arrivals : state.result_arrivals) arrivals.resize(at(state.ranks));
  if (scatters && plan.contributes[at(state.rank)]) state.row_sendings = sendings(FrameKind::row, 0);
  if (state.sends_results())
    for (int generation : {1, 2}) state.result_sendings[at(generation - 1)] = sendings(FrameKind::result, generation);
  for (int peer = 0; peer < state.ranks; ++peer) {
    if (peer == state.rank) continue;
    auto const own_row = scatters ? plan.scatter[at(state.rank)] : ByteRange{};
    if (own_row.bytes > 0 && plan.contributes[at(peer)]) {
      state.rows[at(peer)] = state.memory->pool.take(own_row.bytes);
      state.row_arrivals[at(peer)] = TcpArrival(state.rows[at(peer)].data(), own_row.bytes);
    }
    if (state.receives_from(peer)) {
      auto const [begin, bytes] = plan.gather[at(peer)];
      for (auto& arrivals : state.result_arrivals) arrivals[at(peer)] = TcpArrival(state.result + begin, bytes);
    }
    if (state.sends_results()) {
      std::size_t const bytes = plan.gather[at(state.rank)].bytes;
      if (plan.per_member) state.versions[at(peer)] = state.memory->pool.take(bytes);
      for (auto& generation : state.result_sendings)
        for (std::size_t index = 0; index < step; ++index) {
          auto& sending = generation[at(peer) * step + index];
          sending.data = plan.per_member ? state.versions[at(peer)].data() : state.own_result();
          sending.bytes = bytes;
        }
    }
  }
  state.destinations.push_back(state.result != nullptr ? state.own_result() : nullptr);
  state.is_started = true;
  fabric_.resume();
  if (state.row_sendings.empty()) return;
  // Each member begins with the one after itself, so that not all send to one owner first.
  for (int turn = 1; turn < state.ranks; ++turn) {
    int const peer = (state.rank + turn) % state.ranks;
    auto const [begin, bytes] = plan.scatter[at(peer)];
    for (std::size_t index = 0; index < step; ++index) {
      auto& sending = state.row_sendings[at(peer) * step + index];
      sending.data = state.contribution + begin;
      sending.bytes = bytes;
      post(sending, peer, bytes, 0);
    }
  }
}

void TcpExchange::post(TcpSending& sending, int peer, std::size_t ready, std::uint64_t hash) {
  auto& link = fabric_.bulk_link(peer, sending.first);
  if (!link.end().empty() || ready <= sending.ready) return;
  state_->unsent_bytes.fetch_add(sending.share(sending.ready, ready), std::memory_order_relaxed);
  sending.ready = ready;
  if (ready == sending.bytes) sending.hash = hash;
  link.send(std::shared_ptr<TcpSending>(state_, &sending));
}

bool TcpExchange::row_arrived(int source, std::size_t bytes) const {
  return source == state_->rank || state_->row_arrivals[at(source)].arrived() >= bytes;
}

std::byte const* TcpExchange::row(int source) const {
  if (source != state_->rank) return state_->rows[at(source)].data();
  return state_->contribution + state_->plan.scatter[at(source)].begin;
}

void TcpExchange::release_rows() {
  for (int source = 0; source < state_->ranks; ++source)
    if (state_->row_arrivals[at(source)].is_complete()) state_->rows[at(source)] = {};
}

std::span<std::byte* const> TcpExchange::destinations() {
  return state_->destinations;
}

std::byte* TcpExchange::destination(int receiver) {
  return receiver == state_->rank ? state_->own_result() : state_->versions[at(receiver)].data();
}

void TcpExchange::publish(int generation, std::size_t bytes, std::uint64_t hash) {
  TcpExchangeState& state = *state_;
  std::size_t const shard = state.plan.gather[at(state.rank)].bytes;
  if (bytes == shard) {
    state.published_generation = generation;
    // No message carries the hash of an empty shard, so everybody takes it for 0.
    state.hashes[at(state.rank)] = shard > 0 ? hash : 0;
  }
  if (!state.sends_results()) return;
  std::size_t const step = fabric_.connections();
  for (int turn = 1; turn < state.ranks; ++turn) {
    int const peer = (state.rank + turn) % state.ranks;
    for (std::size_t index = 0; index < step; ++index)
      post(state.result_sendings[at(generation - 1)][at(peer) * step + index], peer, bytes, hash);
  }
}

bool TcpExchange::result_arrived(int owner, int generation) const {
  if (owner == state_->rank) return state_->published_generation >= generation;
  return state_->result_arrivals[at(generation - 1)][at(owner)].is_complete();
}

std::uint64_t TcpExchange::result_hash(int owner) const {
  return state_->hashes[at(owner)];
}

bool TcpExchange::is_drained() const {
  return state_->unsent_bytes.load(std::memory_order_relaxed) == 0 || fabric_.is_aborted();
}

// --- small exchanges ---------------------------------------------------------------------------------------------

void TcpSmallExchange::post(std::span<std::byte const> bytes) {
  if (bytes.size() > kMostSmallBytes) throw Error(Errc::bad_argument, "tcp fabric: a small message is too large");
  state_->bodies[at(fabric_.rank_)].emplace(bytes.begin(), bytes.end());
  FrameHeader header;
  header.kind = FrameKind::small;
  header.stream = static_cast<std::uint8_t>(key_.stream);
  header.view = fabric_.view_;
  header.sequence = key_.sequence;
  header.bytes = static_cast<std::uint32_t>(bytes.size());
  fabric_.send_to_all(header, bytes);
}

bool TcpSmallExchange::arrived(int rank) const {
  return state_->bodies[at(rank)].has_value();
}

std::span<std::byte const> TcpSmallExchange::bytes(int rank) const {
  return *state_->bodies[at(rank)];
}

}  // namespace holdfast::fabrics
