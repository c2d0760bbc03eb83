#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "fabrics/memory/memory_fabric.hpp"
#include "fabrics/registry.hpp"

namespace holdfast::fabrics {

namespace {

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
  FileDescriptor memory(::memfd_create(name, MFD_CLOEXEC));
  if (memory.get() < 0 || ::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0)
    throw Error(Errc::environment, "shm fabric: cannot create " + std::to_string(bytes) + " bytes of shared memory (" +
                                       std::strerror(errno) + "); lower HOLDFAST_ARENA_BYTES");
  return memory;
}

FileDescriptor open_peer_memory(Member const& peer, int descriptor, int flags) {
  auto const path = "/proc/" + std::to_string(peer.pid) + "/fd/" + std::to_string(descriptor);
  FileDescriptor memory(::open(path.c_str(), flags | O_CLOEXEC));
  if (memory.get() < 0)
    throw Error(Errc::environment, "shm fabric: cannot open the memory of process " + std::to_string(peer.pid) + " (" +
                                       std::strerror(errno) +
                                       "): the members must run as one user in one PID namespace; use fabric=mpi");
  return memory;
}

struct PeerMappings {
  Mapping control;
  Mapping contributions;
  Mapping results;
};

struct HostMappings final : Mappings {
  std::vector<PeerMappings> peers;
};

struct Handle {
  std::int32_t control = -1;
  std::int32_t contributions = -1;
  std::int32_t results = -1;
};

}  // namespace

Outcome<std::unique_ptr<Fabric>> create_shm(Group& group, FabricOptions const& options) {
  auto const view = group.view();
  auto const rank = static_cast<std::size_t>(group.rank());
  for (auto const& member : view.members)
    if (member.locality != view.members[rank].locality)
      throw Error(Errc::environment, "shm fabric: " + member.host + " and " + view.members[rank].host +
                                         " do not share memory; use fabric=mpi");

  // The files live as long as somebody maps them; the descriptors only until everyone has.
  auto const control = create_memory("holdfast-control", sizeof(Control));
  auto const contributions = create_memory("holdfast-contributions", options.arena_bytes);
  auto const results = create_memory("holdfast-results", options.arena_bytes);
  Handle const handle{control.get(), contributions.get(), results.get()};

  auto const deadline = Deadline::after(group.config().start_timeout);
  auto const handles = group.all_gather("shm fabric", std::as_bytes(std::span(&handle, 1)), deadline);
  if (!handles) return fail(handles.error());

  auto mappings = std::make_unique<HostMappings>();
  std::vector<PeerMemory> peers;
  for (std::size_t peer = 0; peer < view.members.size(); ++peer) {
    auto const& bytes = (*handles)[peer];
    Handle theirs;
    if (bytes.size() != sizeof theirs)
      return fail(Errc::corrupt_message, "shm fabric: a member sent a handle of the wrong size");
    std::memcpy(&theirs, bytes.data(), sizeof theirs);
    bool const is_self = peer == rank;
    auto const& member = view.members[peer];
    mappings->peers.push_back(
        {Mapping(open_peer_memory(member, theirs.control, O_RDWR).get(), sizeof(Control), PROT_READ | PROT_WRITE),
         Mapping(open_peer_memory(member, theirs.contributions, is_self ? O_RDWR : O_RDONLY).get(), options.arena_bytes,
                 is_self ? PROT_READ | PROT_WRITE : PROT_READ),
         Mapping(open_peer_memory(member, theirs.results, O_RDWR).get(), options.arena_bytes, PROT_READ | PROT_WRITE)});
    auto const& mapped = mappings->peers.back();
    peers.push_back(
        {reinterpret_cast<Control*>(mapped.control.data()), mapped.contributions.data(), mapped.results.data()});
  }
  if (auto const mapped = group.all_gather("shm fabric mapped", {}, deadline); !mapped) return fail(mapped.error());
  auto* const own_contributions = mappings->peers[rank].contributions.data();
  return std::make_unique<MemoryFabric>("shm", group.rank(), std::move(peers), own_contributions, options.arena_bytes,
                                        std::move(mappings));
}

}  // namespace holdfast::fabrics
