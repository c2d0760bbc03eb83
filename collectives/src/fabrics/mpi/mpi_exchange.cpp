#include "fabrics/mpi/mpi_exchange.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include <holdfast/runtime/error.hpp>

namespace holdfast::fabrics {

namespace {

// Below this a message costs more for its envelope than for its bytes.
constexpr std::size_t kLeastMessageBytes = std::size_t{64} << 10;
// An MPI count is an int.
constexpr std::size_t kMostMessageBytes = std::size_t{1} << 30;

enum Part : std::uint32_t {
  kAnnouncementOut,
  kAnnouncementIn,
  kRowOut,
  kRowIn,
  kResultOut,                  // of generation 1, then of generation 2
  kResultIn = kResultOut + 2,  // likewise
  kParts = kResultIn + 2
};

std::size_t at(int rank) {
  return static_cast<std::size_t>(rank);
}

}  // namespace

struct MpiExchange::State final : MpiOwner, std::enable_shared_from_this<MpiExchange::State> {
  using Direction = MpiLane::Direction;

  State(MpiFabric& fabric, ExchangeKey exchange, std::byte const* own_contribution, std::byte* own_memory)
      : memory(fabric.memory_),
        tags(fabric.tags_),
        requests(fabric.memory_->requests),
        pool(fabric.memory_->pool),
        key(exchange),
        rank(fabric.rank_),
        ranks(fabric.world_size()),
        contribution(own_contribution),
        result(own_memory),
        lanes(at(ranks) * kParts),
        announcements(pool.take(at(ranks) * sizeof(Announcement))),
        trailers(pool.take(at(ranks) * kParts * MpiLane::kTrailerBytes)) {}

  void completed(std::uint32_t index, std::uint32_t message, std::size_t bytes) override {
    MpiLane& moved = lanes[index];
    if (!moved.completed(message, bytes)) {
      requests.report(static_cast<int>(index % static_cast<std::uint32_t>(ranks)), "a message of an unexpected length");
      return;
    }
    if (!is_stopped) moved.refill(requests, shared_from_this(), index);
  }

  [[nodiscard]] std::uint32_t index(std::uint32_t part, int peer) const {
    return part * static_cast<std::uint32_t>(ranks) + static_cast<std::uint32_t>(peer);
  }
  [[nodiscard]] MpiLane& lane(std::uint32_t part, int peer) { return lanes[index(part, peer)]; }
  [[nodiscard]] std::byte* trailer(std::uint32_t part, int peer) const {
    return trailers.data() + index(part, peer) * MpiLane::kTrailerBytes;
  }
  void post(std::uint32_t part, int peer, std::size_t bytes) {
    lane(part, peer).post(requests, shared_from_this(), index(part, peer), bytes);
  }
  [[nodiscard]] Announcement& announcement(int peer) const {
    return reinterpret_cast<Announcement*>(announcements.data())[peer];
  }
  [[nodiscard]] bool receives_from(int owner) const {
    return plan.gathers && owner != rank && plan.gather[at(owner)].bytes > 0;
  }
  [[nodiscard]] bool sends_results() const { return plan.gathers && plan.gather[at(rank)].bytes > 0; }
  [[nodiscard]] std::byte* own_result() const { return result + plan.gather[at(rank)].begin; }

  std::shared_ptr<MpiMemory> memory;  // first: outlives the buffers below
  MpiTags tags;
  MpiRequests& requests;
  MessagePool& pool;
  ExchangeKey key;
  int rank;
  int ranks;
  std::byte const* contribution;
  std::byte* result;
  ExchangePlan plan;
  std::vector<MpiLane> lanes;  // [part][peer]
  MessagePool::Buffer announcements;
  MessagePool::Buffer trailers;
  std::vector<MessagePool::Buffer> rows;      // [source]
  std::vector<MessagePool::Buffer> versions;  // [receiver], with plan.per_member
  std::vector<std::byte*> destinations;
  std::array<bool, 2> receives{};  // by generation: whether receives have been posted
  int published_generation = 0;    // whole
  std::uint64_t own_hash = 0;
  std::atomic<bool> is_stopped{false};  // the exchange is gone
};

MpiExchange::MpiExchange(MpiFabric& fabric, ExchangeKey key, Announcement const& announcement,
                         std::byte const* contribution, std::byte* result)
    : fabric_(fabric), state_(std::make_shared<State>(fabric, key, contribution, result)) {
  State& state = *state_;
  state.announcement(state.rank) = announcement;
  MpiFabric::Turn const turn(fabric_);
  int const tag = state.tags.of(MpiTags::Kind::announcement, key);
  constexpr std::size_t kBytes = sizeof(Announcement);
  for (int step = 1; step < state.ranks; ++step) {
    int const peer = (state.rank + step) % state.ranks;
    state.lane(kAnnouncementIn, peer) =
        MpiLane(MpiLane::Direction::receive, peer, tag, state.announcement(peer).data(), kBytes, kBytes, nullptr);
    state.lane(kAnnouncementOut, peer) =
        MpiLane(MpiLane::Direction::send, peer, tag, state.announcement(state.rank).data(), kBytes, kBytes, nullptr);
    state.post(kAnnouncementIn, peer, kBytes);
    state.post(kAnnouncementOut, peer, kBytes);
  }
}

MpiExchange::~MpiExchange() {
  state_->is_stopped = true;
}

bool MpiExchange::announced(int rank) const {
  return state_->lane(kAnnouncementIn, rank).is_complete();
}

Announcement const& MpiExchange::announcement(int rank) const {
  return state_->announcement(rank);
}

void MpiExchange::start(ExchangePlan const& plan) {
  State& state = *state_;
  state.plan = plan;
  std::size_t const message = std::clamp(plan.chunk_bytes, kLeastMessageBytes, kMostMessageBytes);
  int const row_tag = state.tags.of(MpiTags::Kind::row, state.key);
  bool const scatters = !plan.scatter.empty();
  state.rows.resize(at(state.ranks));
  state.versions.resize(at(state.ranks));
  MpiFabric::Turn const turn(fabric_);
  for (int step = 1; step < state.ranks; ++step) {
    int const peer = (state.rank + step) % state.ranks;
    auto const own_row = scatters ? plan.scatter[at(state.rank)] : ByteRange{};
    if (own_row.bytes > 0 && plan.contributes[at(peer)]) {
      state.rows[at(peer)] = state.pool.take(own_row.bytes);
      state.lane(kRowIn, peer) = MpiLane(MpiLane::Direction::receive, peer, row_tag, state.rows[at(peer)].data(),
                                         own_row.bytes, message, nullptr);
      state.post(kRowIn, peer, own_row.bytes);
    }
    auto const sent_row = scatters ? plan.scatter[at(peer)] : ByteRange{};
    if (sent_row.bytes > 0 && plan.contributes[at(state.rank)]) {
      // MPI only reads what it sends, but its signature for both directions in one lane wants a plain pointer.
      auto* const data = const_cast<std::byte*>(state.contribution) + sent_row.begin;
      state.lane(kRowOut, peer) =
          MpiLane(MpiLane::Direction::send, peer, row_tag, data, sent_row.bytes, message, nullptr);
      state.post(kRowOut, peer, sent_row.bytes);
    }
    for (std::uint32_t generation = 0; generation < 2; ++generation) {
      int const tag =
          state.tags.of(generation == 0 ? MpiTags::Kind::first_result : MpiTags::Kind::second_result, state.key);
      if (state.receives_from(peer)) {
        auto const [begin, bytes] = plan.gather[at(peer)];
        state.lane(kResultIn + generation, peer) = MpiLane(MpiLane::Direction::receive, peer, tag, state.result + begin,
                                                           bytes, message, state.trailer(kResultIn + generation, peer));
      }
      if (state.sends_results()) {
        std::size_t const bytes = plan.gather[at(state.rank)].bytes;
        if (plan.per_member && state.versions[at(peer)].data() == nullptr)
          state.versions[at(peer)] = state.pool.take(bytes);
        state.lane(kResultOut + generation, peer) = MpiLane(
            MpiLane::Direction::send, peer, tag, plan.per_member ? state.versions[at(peer)].data() : state.own_result(),
            bytes, message, state.trailer(kResultOut + generation, peer));
      }
    }
  }
  state.destinations.push_back(state.result != nullptr ? state.own_result() : nullptr);
}

bool MpiExchange::row_arrived(int source, std::size_t bytes) const {
  return source == state_->rank || state_->lane(kRowIn, source).arrived_bytes() >= bytes;
}

std::byte const* MpiExchange::row(int source) const {
  if (source != state_->rank) return state_->rows[at(source)].data();
  return state_->contribution + state_->plan.scatter[at(source)].begin;
}

void MpiExchange::release_rows() {
  for (int source = 0; source < state_->ranks; ++source)
    if (state_->lane(kRowIn, source).is_complete()) state_->rows[at(source)] = {};
}

std::span<std::byte* const> MpiExchange::destinations() {
  return state_->destinations;
}

std::byte* MpiExchange::destination(int receiver) {
  return receiver == state_->rank ? state_->own_result() : state_->versions[at(receiver)].data();
}

void MpiExchange::publish(int generation, std::size_t bytes, std::uint64_t hash) {
  State& state = *state_;
  receive_results(generation);
  std::size_t const shard = state.plan.gather[at(state.rank)].bytes;
  auto const part = kResultOut + static_cast<std::uint32_t>(generation - 1);
  if (bytes == shard) {
    state.published_generation = generation;
    // No message carries the hash of an empty shard, so everybody takes it for 0.
    state.own_hash = shard > 0 ? hash : 0;
  }
  if (!state.sends_results() || state.ranks == 1) return;
  MpiFabric::Turn const turn(fabric_);
  for (int step = 1; step < state.ranks; ++step) {
    int const peer = (state.rank + step) % state.ranks;
    if (bytes == shard) std::memcpy(state.trailer(part, peer), &hash, sizeof hash);
    state.post(part, peer, bytes);
  }
}

// Only when this member itself is that far: a generation that nobody publishes must leave no receive behind, which
// would take the message of a later exchange. Whether there is one is decided alike at all members.
void MpiExchange::receive_results(int generation) const {
  State& state = *state_;
  if (std::exchange(state.receives[at(generation - 1)], true)) return;
  MpiFabric::Turn const turn(fabric_);
  for (int step = 1; step < state.ranks; ++step) {
    int const owner = (state.rank + state.ranks - step) % state.ranks;
    if (state.receives_from(owner))
      state.post(kResultIn + static_cast<std::uint32_t>(generation - 1), owner, state.plan.gather[at(owner)].bytes);
  }
}

bool MpiExchange::result_arrived(int owner, int generation) const {
  State& state = *state_;
  if (owner == state.rank) return state.published_generation >= generation;
  receive_results(generation);
  // Late bytes of the first generation would overwrite the second.
  for (int earlier = 1; earlier <= generation; ++earlier)
    if (state.receives[at(earlier - 1)] &&
        !state.lane(kResultIn + static_cast<std::uint32_t>(earlier - 1), owner).is_complete())
      return false;
  return true;
}

std::uint64_t MpiExchange::result_hash(int owner) const {
  State& state = *state_;
  if (owner == state.rank) return state.own_hash;
  if (!state.receives_from(owner)) return 0;
  std::uint64_t hash = 0;
  std::memcpy(&hash, state.trailer(kResultIn + (state.receives[1] ? 1 : 0), owner), sizeof hash);
  return hash;
}

bool MpiExchange::is_drained() const {
  if (state_->requests.is_stopped()) return true;  // whatever still moves reads from memory that nobody gets again
  for (std::uint32_t const part : {kRowOut, kResultOut, Part{kResultOut + 1}})
    for (int peer = 0; peer < state_->ranks; ++peer)
      if (!state_->lane(part, peer).is_quiet()) return false;
  return true;
}

namespace {

// Fits the eager limit of every transport, so the common case costs one message and no handshake.
constexpr std::size_t kFirstBytes = 2048;
constexpr std::size_t kHeaderBytes = 8;
constexpr std::size_t kMostSmallBytes = std::size_t{256} << 20;

}  // namespace

struct MpiSmallExchange::State final : MpiOwner, std::enable_shared_from_this<MpiSmallExchange::State> {
  enum Message : std::uint32_t { kFirst = 0, kRest = 1 };
  struct Peer {
    MessagePool::Buffer whole;  // where the first message was too short
    std::size_t bytes = 0;
    bool has_first = false;
    bool has_all = false;
  };

  State(MpiFabric& fabric, ExchangeKey key)
      : memory(fabric.memory_),
        requests(fabric.memory_->requests),
        pool(fabric.memory_->pool),
        tag(fabric.tags_.of(MpiTags::Kind::small, key)),
        rank(fabric.rank_),
        peers(at(fabric.world_size())),
        firsts(pool.take(at(fabric.world_size()) * kFirstBytes)) {}

  [[nodiscard]] std::byte* first(int peer) const { return firsts.data() + at(peer) * kFirstBytes; }

  // Lane 0 is what we send, lane 1 + r what comes from rank r.
  void completed(std::uint32_t lane, std::uint32_t message, std::size_t bytes) override {
    if (lane == 0) return;
    int const source = static_cast<int>(lane) - 1;
    Peer& peer = peers[at(source)];
    if (message == kRest) {
      peer.has_all = bytes == peer.bytes + kHeaderBytes - kFirstBytes;
      if (!peer.has_all) requests.report(source, "a small message of an unexpected length");
      return;
    }
    std::uint64_t total = 0;
    if (bytes >= kHeaderBytes) std::memcpy(&total, first(source), sizeof total);
    bool const is_whole = total + kHeaderBytes <= kFirstBytes;
    if (bytes < kHeaderBytes || total > kMostSmallBytes || bytes != (is_whole ? total + kHeaderBytes : kFirstBytes)) {
      requests.report(source, "a small message with a wrong header");
      return;
    }
    peer.bytes = total;
    peer.has_first = true;
    peer.has_all = is_whole;
    if (is_whole || is_stopped) return;
    peer.whole = pool.take(total);
    constexpr std::size_t kHere = kFirstBytes - kHeaderBytes;
    std::memcpy(peer.whole.data(), first(source) + kHeaderBytes, kHere);
    requests.receive({shared_from_this(), source, lane, kRest}, tag, peer.whole.data() + kHere, total - kHere);
  }

  std::shared_ptr<MpiMemory> memory;  // first: outlives the buffers below
  MpiRequests& requests;
  MessagePool& pool;
  int tag;
  int rank;
  std::vector<Peer> peers;
  MessagePool::Buffer firsts;
  MessagePool::Buffer own;
  bool receives = false;
  std::atomic<bool> is_stopped{false};  // the exchange is gone
};

MpiSmallExchange::MpiSmallExchange(MpiFabric& fabric, ExchangeKey key)
    : fabric_(fabric), state_(std::make_shared<State>(fabric, key)) {}

// Only when this member itself is that far: where all members give a round up before its statistics nobody posts, and a
// receive left behind would take the message of a later exchange.
void MpiSmallExchange::receive() const {
  if (std::exchange(state_->receives, true)) return;
  MpiFabric::Turn const turn(fabric_);
  for (int peer = 0; peer < fabric_.world_size(); ++peer)
    if (peer != state_->rank)
      state_->requests.receive({state_, peer, static_cast<std::uint32_t>(peer) + 1, State::kFirst}, state_->tag,
                               state_->first(peer), kFirstBytes);
}

MpiSmallExchange::~MpiSmallExchange() {
  state_->is_stopped = true;
}

void MpiSmallExchange::post(std::span<std::byte const> bytes) {
  receive();
  State& state = *state_;
  if (bytes.size() > kMostSmallBytes) throw Error(Errc::bad_argument, "mpi fabric: a small message is too large");
  std::uint64_t const total = bytes.size();
  std::size_t const length = kHeaderBytes + bytes.size();
  state.own = state.pool.take(length);
  std::memcpy(state.own.data(), &total, sizeof total);
  if (!bytes.empty()) std::memcpy(state.own.data() + kHeaderBytes, bytes.data(), bytes.size());
  State::Peer& own = state.peers[at(state.rank)];
  own.bytes = bytes.size();
  own.has_all = true;
  MpiFabric::Turn const turn(fabric_);
  for (int step = 1; step < fabric_.world_size(); ++step) {
    int const peer = (state.rank + step) % fabric_.world_size();
    std::size_t const first = std::min(length, kFirstBytes);
    state.requests.send({state_, peer, 0, State::kFirst}, state.tag, state.own.data(), first);
    if (length > first)
      state.requests.send({state_, peer, 0, State::kRest}, state.tag, state.own.data() + first, length - first);
  }
}

bool MpiSmallExchange::arrived(int rank) const {
  receive();
  return state_->peers[at(rank)].has_all;
}

std::span<std::byte const> MpiSmallExchange::bytes(int rank) const {
  State const& state = *state_;
  State::Peer const& peer = state.peers[at(rank)];
  std::byte const* const data = rank == state.rank             ? state.own.data() + kHeaderBytes
                                : peer.whole.data() != nullptr ? peer.whole.data()
                                                               : state.first(rank) + kHeaderBytes;
  return {data, peer.bytes};
}

}  // namespace holdfast::fabrics
