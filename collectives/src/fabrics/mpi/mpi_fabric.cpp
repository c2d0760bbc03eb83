#include "fabrics/mpi/mpi_fabric.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <sched.h>
#include <sys/prctl.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "fabrics/mpi/mpi_exchange.hpp"

namespace holdfast::fabrics {

using namespace std::chrono_literals;

namespace {

// MPI has no way to sleep until something happens, so waiting means looking: at first often, then less and less.
constexpr auto kLook = 50us;
constexpr auto kShortestNap = 10us;
constexpr auto kLongestNap = 100us;
constexpr auto kIdleNap = 5ms;  // with nothing open of our own

constexpr auto kGraveyardPeriod = 10ms;

constexpr auto kWatchdogPeriod = 1s;
constexpr int kWatchdogPeriods = 30;

constexpr int kTagBits = 15;

}  // namespace

MpiTags::MpiTags(int largest_tag, ViewId view) {
  constexpr int kLow = (1 << kTagBits) - 1;
  if (largest_tag < kLow)
    throw Error(Errc::environment, "mpi fabric: this MPI allows tags up to " + std::to_string(largest_tag) +
                                       ", below the 32767 that the standard promises");
  int const views = (largest_tag - kLow) / (kLow + 1);
  if (views > 0) view_bits_ = static_cast<int>(static_cast<std::uint64_t>(view) % (views + 1ULL)) << kTagBits;
}

MpiFabric::Turn::Turn(MpiFabric& fabric) : lock_(mpi_mutex()), number_(fabric.turn_) {
  number_.fetch_add(1);
}

MpiFabric::Turn::~Turn() {
  number_.fetch_add(1);
}

namespace {

int largest_tag(MPI_Comm comm) {
  if (comm == MPI_COMM_NULL) return (1 << kTagBits) - 1;
  int* value = nullptr;
  int is_set = 0;
  MPI_Comm_get_attr(comm, MPI_TAG_UB, &value, &is_set);
  return is_set != 0 ? *value : 0;
}

std::shared_ptr<PrivateArena> contribution_arena(FabricContext const& context) {
  if (auto* const previous = dynamic_cast<MpiFabric*>(context.previous))
    return std::dynamic_pointer_cast<PrivateArena>(previous->arena(ArenaUse::contribution));
  return std::make_shared<PrivateArena>(context.arena_bytes);
}

}  // namespace

MpiFabric::MpiFabric(std::shared_ptr<interop::MpiHandle> comm, std::shared_ptr<MpiGraveyard> graveyard,
                     std::vector<int> peers, FabricContext const& context)
    : comm_(std::move(comm)),
      graveyard_(std::move(graveyard)),
      rank_(context.rank()),
      world_size_(static_cast<int>(peers.size())),
      tags_(largest_tag(comm_->get()), context.view.id),
      memory_(std::make_shared<MpiMemory>(comm_->get(), std::move(peers), contribution_arena(context),
                                          context.arena_bytes)),
      watchdog_([this](std::stop_token stop) { watch(std::move(stop)); }) {}

MpiFabric::~MpiFabric() {
  abort();
  bury();
  watchdog_.request_stop();
  watchdog_.join();
}

void MpiFabric::bury() {
  int is_finalized = 0;
  MPI_Finalized(&is_finalized);
  Turn const turn(*this);
  if (is_finalized == 0) memory_->requests.reap();
  graveyard_->add(memory_);
}

void MpiFabric::visit_graveyard() {
  if (graveyard_->is_empty()) return;
  auto const now = std::chrono::steady_clock::now();
  if (now - graveyard_seen_ < kGraveyardPeriod) return;
  graveyard_seen_ = now;
  graveyard_->test();
}

std::unique_ptr<Exchange> MpiFabric::open(ExchangeKey key, Announcement const& announcement,
                                          std::byte const* contribution, std::byte* result) {
  return std::make_unique<MpiExchange>(*this, key, announcement, contribution, result);
}

std::unique_ptr<SmallExchange> MpiFabric::open_small(ExchangeKey key) {
  return std::make_unique<MpiSmallExchange>(*this, key);
}

bool MpiFabric::progress() {
  if (memory_->requests.is_idle()) return false;
  Turn const turn(*this);
  visit_graveyard();
  return memory_->requests.test();
}

void MpiFabric::wait(std::chrono::nanoseconds at_most) {
  auto const start = std::chrono::steady_clock::now();
  auto const until = start + at_most;
  if (memory_->requests.is_idle() || memory_->requests.is_stopped()) {
    sleep(std::min<std::chrono::nanoseconds>(at_most, kIdleNap));
    if (memory_->requests.is_stopped()) return;
    Turn const turn(*this);
    visit_graveyard();
    memory_->requests.test();
    return;
  }
  auto now = start;
  for (std::chrono::nanoseconds nap = 0us; now < until; now = std::chrono::steady_clock::now()) {
    if (progress()) return;
    if (now - start < kLook) {
      ::sched_yield();
      if (sleep(0us)) return;
      continue;
    }
    nap = std::clamp<std::chrono::nanoseconds>(nap * 2, kShortestNap, kLongestNap);
    if (sleep(std::min<std::chrono::nanoseconds>(nap, until - now))) return;
  }
}

void MpiFabric::wake() {
  {
    std::lock_guard const lock(wake_mutex_);
    is_woken_ = true;
  }
  wakes_.notify_one();
}

bool MpiFabric::sleep(std::chrono::nanoseconds at_most) {
  // The kernel may add 50 us to any sleep, several times what a short nap is meant to take. It is set for the thread
  // that drives, which is the communicator's own.
  thread_local bool const is_precise = ::prctl(PR_SET_TIMERSLACK, 1000UL) == 0;
  static_cast<void>(is_precise);
  std::unique_lock lock(wake_mutex_);
  if (!is_woken_ && at_most > 0ns) wakes_.wait_for(lock, at_most, [&] { return is_woken_; });
  return std::exchange(is_woken_, false);
}

void MpiFabric::abort() noexcept {
  memory_->requests.stop();
  memory_->results->keep_released();
  wake();
}

void MpiFabric::watch(std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any stops;
  std::uint64_t seen = 0;
  int periods = 0;
  // The periods are counted by this thread's own waking: while the process is stopped, neither side advances.
  while (true) {
    std::unique_lock lock(mutex);
    if (stops.wait_for(lock, stop, kWatchdogPeriod, [] { return false; }) || stop.stop_requested()) return;
    std::uint64_t const turn = turn_.load();
    bool const is_same_stay = turn % 2 == 1 && turn == seen;
    periods = is_same_stay ? periods + 1 : 0;
    seen = turn;
    if (periods < kWatchdogPeriods) continue;
    log_error("mpi fabric: a call into MPI has not returned for " + std::to_string(kWatchdogPeriods) +
              " s, so this process can neither serve nor leave its group; it ends itself. Open MPI's tcp transport is "
              "known for this after a peer's death: try mpirun --mca btl_tcp_flags 9");
    std::abort();
  }
}

namespace {

/// A duplicate of MPI_COMM_WORLD in the making. The nonblocking form, because a member that died meanwhile must not
/// hold up the rest.
struct Duplication {
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
};
/// Of which member, for which communicator.
using DuplicationKey = std::pair<MemberId, std::string>;

/// Those that are not done yet; under mpi_mutex(). One for each communicator, however many views it takes to open it:
/// the ranks of MPI_COMM_WORLD pair them by their order, and not all of them give up in the same views.
std::map<DuplicationKey, std::unique_ptr<Duplication>>& duplications() {
  static std::map<DuplicationKey, std::unique_ptr<Duplication>> all;
  return all;
}

DuplicationKey duplication_key(FabricContext const& context) {
  return {context.group.self(), context.name};
}

bool is_duplicating(FabricContext const& context) {
  std::lock_guard const lock(mpi_mutex());
  return duplications().contains(duplication_key(context));
}

Outcome<interop::MpiHandle> duplicate_world(FabricContext const& context) {
  auto const key = duplication_key(context);
  auto const deadline = Deadline::after(context.group.config().start_timeout);
  while (true) {
    {
      std::lock_guard const lock(mpi_mutex());
      auto& duplication = duplications()[key];
      if (!duplication) {
        duplication = std::make_unique<Duplication>();
        if (MPI_Comm_idup(MPI_COMM_WORLD, &duplication->comm, &duplication->request) != MPI_SUCCESS)
          throw Error(Errc::environment, "mpi fabric: MPI_COMM_WORLD cannot be duplicated");
      }
      int is_done = 0;
      if (MPI_Test(&duplication->request, &is_done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
        return fail(Errc::member_lost, "mpi fabric: duplicating MPI_COMM_WORLD failed");
      if (is_done != 0) {
        MPI_Comm const comm = duplication->comm;
        duplications().erase(key);
        MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
        return interop::adopt(comm);
      }
    }
    if (auto const failure = context.group.failure()) return fail(*failure);
    // Who is waited for may wait for this member in the next view.
    if (context.group.view().id != context.view.id)
      return fail(Errc::view_changed, "mpi fabric: the view changed while MPI_COMM_WORLD was duplicated");
    if (!context.is_wanted()) return fail(Errc::aborted, "mpi fabric: given up while MPI_COMM_WORLD was duplicated");
    if (deadline.has_passed())
      return fail(Errc::pending, "mpi fabric: not all members have opened it within the start timeout");
    std::this_thread::sleep_for(kLongestNap);
  }
}

}  // namespace

bool mpi_connects(int world_size) {
  if (!interop::mpi_state()) return false;
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size == world_size;
}

namespace {

/// Where a member is in MPI_COMM_WORLD, and what it still sends of earlier views.
struct Handle {
  std::int32_t rank = -1;  ///< -1: no MPI here. Told to everybody, so that all members refuse together.
  std::int32_t size = 0;
  std::vector<MpiRequests::OpenSends> open_sends;
};
constexpr std::size_t kMostOpenSends = 16'384;

std::vector<std::byte> encode(Handle handle) {
  handle.open_sends.resize(std::min(handle.open_sends.size(), kMostOpenSends));
  auto const sends = std::as_bytes(std::span(handle.open_sends));
  std::vector<std::byte> bytes(2 * sizeof(std::int32_t) + sends.size());
  std::memcpy(bytes.data(), &handle.rank, sizeof handle.rank);
  std::memcpy(bytes.data() + sizeof handle.rank, &handle.size, sizeof handle.size);
  if (!sends.empty()) std::memcpy(bytes.data() + 2 * sizeof(std::int32_t), sends.data(), sends.size());
  return bytes;
}

std::optional<Handle> decode(std::span<std::byte const> bytes) {
  constexpr std::size_t kFixed = 2 * sizeof(std::int32_t);
  constexpr std::int32_t kMostMessages = 4'096;
  constexpr std::uint32_t kMostBytes = std::uint32_t{1} << 30;
  constexpr std::size_t kEach = sizeof(MpiRequests::OpenSends);
  if (bytes.size() < kFixed || (bytes.size() - kFixed) % kEach != 0) return std::nullopt;
  Handle handle;
  std::memcpy(&handle.rank, bytes.data(), sizeof handle.rank);
  std::memcpy(&handle.size, bytes.data() + sizeof handle.rank, sizeof handle.size);
  handle.open_sends.resize((bytes.size() - kFixed) / kEach);
  if (!handle.open_sends.empty()) std::memcpy(handle.open_sends.data(), bytes.data() + kFixed, bytes.size() - kFixed);
  for (auto const& sends : handle.open_sends)
    if (sends.tag < 0 || sends.messages < 0 || sends.messages > kMostMessages || sends.most_bytes > kMostBytes)
      return std::nullopt;
  return handle;
}

}  // namespace

Outcome<std::unique_ptr<Fabric>> create_mpi(FabricContext const& context) {
  Handle own;
  auto const state = interop::mpi_state();
  if (state && state->thread_level >= MPI_THREAD_SERIALIZED) {
    int rank = 0;
    int size = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    own.rank = rank;
    own.size = size;
  }
  auto* const previous = dynamic_cast<MpiFabric*>(context.previous);
  bool const has_no_mpi = previous == nullptr || previous->communicator()->get() == MPI_COMM_NULL;
  if (has_no_mpi && context.world_size() == 1 && own.size != 1) {
    auto nobody = std::make_shared<interop::MpiHandle>(interop::borrow(MPI_COMM_NULL));
    auto graveyard = std::make_shared<MpiGraveyard>(nobody);
    return std::make_unique<MpiFabric>(std::move(nobody), std::move(graveyard), std::vector<int>{0}, context);
  }
  if (previous != nullptr) {
    previous->bury();
    std::lock_guard const lock(mpi_mutex());
    own.open_sends = previous->graveyard()->open_sends();
  }

  bool const is_first = previous == nullptr && !is_duplicating(context);
  auto const everyone = context.all_gather("mpi", encode(std::move(own)));
  if (!everyone) return fail(everyone.error());
  std::vector<int> peers;
  std::map<int, std::vector<MpiRequests::OpenSends>> open_sends;
  for (std::size_t rank = 0; rank < everyone->size(); ++rank) {
    auto theirs = decode((*everyone)[rank]);
    if (!theirs) return fail(Errc::corrupt_message, "mpi fabric: rank " + std::to_string(rank) + " sent no MPI rank");
    if (theirs->rank < 0)
      throw Error(Errc::environment, "mpi fabric: MPI is not usable at rank " + std::to_string(rank) +
                                         ": start the program by mpirun, with MPI_THREAD_SERIALIZED or more if it "
                                         "initialises MPI itself; or use fabric=shm on one host");
    if (is_first && theirs->size != context.world_size())
      throw Error(Errc::environment, "mpi fabric: the group has " + std::to_string(context.world_size()) +
                                         " members but MPI_COMM_WORLD has " + std::to_string(theirs->size) +
                                         " ranks; every rank that mpirun started has to join the group");
    peers.push_back(theirs->rank);
    open_sends[theirs->rank] = std::move(theirs->open_sends);
  }
  if (std::set<int>(peers.begin(), peers.end()).size() != peers.size())
    throw Error(Errc::environment,
                "mpi fabric: two members have the same rank in MPI_COMM_WORLD: members that are "
                "threads of one process need fabric=loopback");
  if (previous != nullptr) {
    {
      std::lock_guard const lock(mpi_mutex());
      previous->graveyard()->settle(open_sends);
    }
    return std::make_unique<MpiFabric>(previous->communicator(), previous->graveyard(), std::move(peers), context);
  }
  auto comm = duplicate_world(context);
  if (!comm) return fail(comm.error());
  auto shared = std::make_shared<interop::MpiHandle>(std::move(*comm));
  auto graveyard = std::make_shared<MpiGraveyard>(shared);
  return std::make_unique<MpiFabric>(std::move(shared), std::move(graveyard), std::move(peers), context);
}

}  // namespace holdfast::fabrics
