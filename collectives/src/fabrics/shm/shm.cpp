#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "fabrics/memory/memory_fabric.hpp"
#include "fabrics/registry.hpp"

namespace holdfast::fabrics {

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  [[nodiscard]] int get() const { return descriptor_; }

 private:
  int descriptor_;
};

class Mapping {
 public:
  Mapping(int descriptor, std::size_t bytes, int protection) : bytes_(bytes) {
    address_ = ::mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    if (address_ == MAP_FAILED)
      throw Error(Errc::environment, "shm fabric: cannot map " + std::to_string(bytes) + " bytes (" +
                                         std::strerror(errno) + "); lower HOLDFAST_ARENA_BYTES or raise ulimit -v");
  }
  Mapping(Mapping&& other) noexcept : bytes_(other.bytes_), address_(std::exchange(other.address_, MAP_FAILED)) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (address_ != MAP_FAILED) ::munmap(address_, bytes_);
  }
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(address_); }

 private:
  std::size_t bytes_;
  void* address_;
};

FileDescriptor create_memory(char const* name, std::size_t bytes) {
  FileDescriptor memory(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Sealed: the others touch it, and one that shrank it would end them all.
  if (memory.get() < 0 || ::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0)
    throw Error(Errc::environment, "shm fabric: cannot create " + std::to_string(bytes) + " bytes of shared memory (" +
                                       std::strerror(errno) + "); lower HOLDFAST_ARENA_BYTES");
  return memory;
}

Outcome<std::shared_ptr<Mapping>> map_peer_memory(Member const& peer, int descriptor, std::size_t bytes, bool is_mine) {
  auto const path = "/proc/" + std::to_string(peer.pid) + "/fd/" + std::to_string(descriptor);
  FileDescriptor const memory(::open(path.c_str(), (is_mine ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (memory.get() < 0)
    return fail(Errc::environment, "shm fabric: cannot open the memory of process " + std::to_string(peer.pid) + " (" +
                                       std::strerror(errno) +
                                       "): the members must run as one user in one PID namespace; use fabric=tcp");
  struct stat status {};
  if (::fstat(memory.get(), &status) != 0 || static_cast<std::size_t>(status.st_size) != bytes)
    return fail(Errc::mismatch, "shm fabric: process " + std::to_string(peer.pid) + " shares " +
                                    std::to_string(status.st_size) + " bytes where this member expects " +
                                    std::to_string(bytes) + "; give every member the same HOLDFAST_ARENA_BYTES");
  if ((::fcntl(memory.get(), F_GET_SEALS) & F_SEAL_SHRINK) == 0)
    return fail(Errc::mismatch, "shm fabric: process " + std::to_string(peer.pid) +
                                    " shares memory that it could take away again; install the same build everywhere");
  return std::make_shared<Mapping>(memory.get(), bytes, is_mine ? PROT_READ | PROT_WRITE : PROT_READ);
}

/// Memory of this member that others map.
class SharedArena {
 public:
  SharedArena(char const* name, std::size_t bytes)
      : file_(create_memory(name, bytes)),
        mapping_(std::make_shared<Mapping>(file_.get(), bytes, PROT_READ | PROT_WRITE)),
        arena_(std::make_shared<MemoryArena>(mapping_, mapping_->data(), bytes)) {
    static std::atomic<std::uint64_t> created{0};
    serial_ = ++created;
  }
  [[nodiscard]] int descriptor() const { return file_.get(); }
  /// Tells it apart from all others of this process; a descriptor is used again once it is closed.
  [[nodiscard]] std::uint64_t serial() const { return serial_; }
  [[nodiscard]] std::shared_ptr<Mapping> const& mapping() const { return mapping_; }
  [[nodiscard]] std::shared_ptr<MemoryArena> const& arena() const { return arena_; }

 private:
  FileDescriptor file_;  // stays open: members of later views map it, too
  std::shared_ptr<Mapping> mapping_;
  std::shared_ptr<MemoryArena> arena_;
  std::uint64_t serial_ = 0;
};

/// Memory of results, which others write: kept from view to view as long as all who were ever shown it are members. One
/// that was left behind may be in the middle of a copy, and go on with it whenever it is resumed.
struct OwnResults {
  std::shared_ptr<SharedArena> arena;
  std::set<MemberId> shown_to;
};

/// All that is mapped of one peer, with the pages touched before where it stays mapped from view to view.
struct PeerMappings {
  std::shared_ptr<Mapping> control;
  std::shared_ptr<Mapping> contributions;
  std::shared_ptr<Mapping> results;
};

class ShmFabric final : public MemoryFabric {
 public:
  /// Of another member. It may have failed to open a view that this one came through, and have begun again.
  struct Mapped {
    std::uint64_t serial = 0;
    std::shared_ptr<Mapping> mapping;
  };
  /// What outlives a view.
  struct Shared {
    std::shared_ptr<SharedArena> own;
    std::shared_ptr<OwnResults> own_results;
    std::map<MemberId, Mapped> contributions;
    std::map<MemberId, Mapped> results;
  };
  ShmFabric(int rank, std::vector<PeerMemory> peers, Shared shared, Suspect suspect)
      : MemoryFabric("shm", rank, std::move(peers), shared.own->arena(), shared.own_results->arena->arena(),
                     std::move(suspect)),
        shared_(std::move(shared)) {}
  [[nodiscard]] Shared const& shared() const { return shared_; }

 private:
  Shared shared_;
};

struct Handle {
  std::int32_t control = -1;
  std::int32_t contributions = -1;
  std::int32_t results = -1;
  std::int32_t reserved = 0;
  std::uint64_t contributions_serial = 0;
  std::uint64_t results_serial = 0;
};

/// What was mapped of a peer before where that is still what it shares; else mapped anew.
Outcome<ShmFabric::Mapped> map_again(std::map<MemberId, ShmFabric::Mapped> const& known, Member const& peer,
                                     std::uint64_t serial, int descriptor, std::size_t bytes, bool is_mine) {
  if (auto const before = known.find(peer.id); before != known.end() && before->second.serial == serial)
    return before->second;
  auto mapping = map_peer_memory(peer, descriptor, bytes, is_mine);
  if (!mapping) return fail(mapping.error());
  return ShmFabric::Mapped{serial, std::move(*mapping)};
}

}  // namespace

Outcome<std::unique_ptr<Fabric>> create_shm(FabricContext const& context) {
  auto const& view = context.view;
  auto const rank = static_cast<std::size_t>(context.rank());
  for (auto const& member : view.members)
    if (member.locality != view.members[rank].locality)
      throw Error(Errc::environment, "shm fabric: " + member.host + " and " + view.members[rank].host +
                                         " do not share memory; use fabric=tcp or fabric=mpi");

  ShmFabric::Shared known;
  if (auto const* const previous = dynamic_cast<ShmFabric const*>(context.previous)) known = previous->shared();
  if (!known.own) known.own = std::make_shared<SharedArena>("holdfast-contributions", context.arena_bytes);
  auto const is_member = [&](MemberId const& id) { return view.rank_of(id).has_value(); };
  if (!known.own_results ||
      !std::all_of(known.own_results->shown_to.begin(), known.own_results->shown_to.end(), is_member))
    known.own_results = std::make_shared<OwnResults>(
        OwnResults{std::make_shared<SharedArena>("holdfast-results", context.arena_bytes), {}});
  auto const& own_results = known.own_results->arena;
  // Before it is shown: should this view fail half-way, whoever did come through it can write here.
  for (auto const& member : view.members) known.own_results->shown_to.insert(member.id);

  // Its file lives as long as somebody maps it; the descriptor only until everyone has.
  auto const control = create_memory("holdfast-control", sizeof(Control));
  Handle const handle{control.get(),       known.own->descriptor(), own_results->descriptor(), 0,
                      known.own->serial(), own_results->serial()};
  auto const handles = context.all_gather("shm", std::as_bytes(std::span(&handle, 1)));
  if (!handles) return fail(handles.error());

  ShmFabric::Shared shared{known.own, known.own_results, {}, {}};
  std::vector<PeerMemory> peers;
  for (std::size_t peer = 0; peer < view.members.size(); ++peer) {
    auto const& bytes = (*handles)[peer];
    Handle theirs;
    if (bytes.size() != sizeof theirs)
      return fail(Errc::corrupt_message, "shm fabric: a member sent a handle of the wrong size");
    std::memcpy(&theirs, bytes.data(), sizeof theirs);
    auto const& member = view.members[peer];
    auto their_control = map_peer_memory(member, theirs.control, sizeof(Control), true);
    if (!their_control) return fail(their_control.error());
    if (peer == rank) {
      shared.contributions[member.id] = {known.own->serial(), known.own->mapping()};
      shared.results[member.id] = {own_results->serial(), own_results->mapping()};
    } else {
      auto contributions = map_again(known.contributions, member, theirs.contributions_serial, theirs.contributions,
                                     context.arena_bytes, false);
      if (!contributions) return fail(contributions.error());
      auto results = map_again(known.results, member, theirs.results_serial, theirs.results, context.arena_bytes, true);
      if (!results) return fail(results.error());
      shared.contributions[member.id] = std::move(*contributions);
      shared.results[member.id] = std::move(*results);
    }
    auto const mappings = std::make_shared<PeerMappings>(
        PeerMappings{*their_control, shared.contributions[member.id].mapping, shared.results[member.id].mapping});
    peers.push_back({reinterpret_cast<Control*>(mappings->control->data()), mappings->contributions->data(),
                     mappings->results->data(), context.arena_bytes, mappings});
  }
  if (auto const mapped = context.all_gather("shm mapped", {}); !mapped) return fail(mapped.error());
  return std::make_unique<ShmFabric>(context.rank(), std::move(peers), std::move(shared), context.suspect());
}

}  // namespace holdfast::fabrics
