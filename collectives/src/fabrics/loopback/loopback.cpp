#include <cstring>
#include <memory>

#include <sys/mman.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "fabrics/memory/memory_fabric.hpp"
#include "fabrics/registry.hpp"

namespace holdfast::fabrics {

namespace {

/// Pages of this process that appear when touched.
class LazyPages {
 public:
  explicit LazyPages(std::size_t bytes) : bytes_(bytes) {
    address_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address_ == MAP_FAILED)
      throw Error(Errc::environment, "loopback fabric: cannot reserve " + std::to_string(bytes) +
                                         " bytes of address space; lower HOLDFAST_ARENA_BYTES or raise ulimit -v");
  }
  LazyPages(LazyPages const&) = delete;
  LazyPages& operator=(LazyPages const&) = delete;
  ~LazyPages() { ::munmap(address_, bytes_); }
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(address_); }

 private:
  std::size_t bytes_;
  void* address_;
};

struct ThreadMemory {
  explicit ThreadMemory(std::size_t arena_bytes)
      : control(sizeof(Control)), contributions(arena_bytes), results(arena_bytes) {}
  LazyPages control;
  LazyPages contributions;
  LazyPages results;
};

// A member may end while others still look at its words, so everyone holds everyone's memory.
struct SharedMappings final : Mappings {
  std::vector<std::shared_ptr<ThreadMemory>> members;
};

struct Handle {
  std::int64_t pid = 0;
  std::shared_ptr<ThreadMemory> const* memory = nullptr;
};

}  // namespace

Outcome<std::unique_ptr<Fabric>> create_loopback(Group& group, FabricOptions const& options) {
  auto const own = std::make_shared<ThreadMemory>(options.arena_bytes);
  Handle const handle{::getpid(), &own};
  auto const deadline = Deadline::after(group.config().start_timeout);
  auto const handles = group.all_gather("loopback fabric", std::as_bytes(std::span(&handle, 1)), deadline);
  if (!handles) return fail(handles.error());

  auto mappings = std::make_unique<SharedMappings>();
  std::vector<PeerMemory> peers;
  for (auto const& bytes : *handles) {
    Handle peer;
    if (bytes.size() != sizeof peer)
      return fail(Errc::corrupt_message, "loopback fabric: a member sent a handle of the wrong size");
    std::memcpy(&peer, bytes.data(), sizeof peer);
    if (peer.pid != ::getpid())
      throw Error(Errc::environment,
                  "the loopback fabric joins threads of one process, but the members are processes; use fabric=shm");
    mappings->members.push_back(*peer.memory);
    auto const& memory = *mappings->members.back();
    peers.push_back(
        {reinterpret_cast<Control*>(memory.control.data()), memory.contributions.data(), memory.results.data()});
  }
  // Nobody's local `own` may go before all have taken their share of it.
  if (auto const taken = group.all_gather("loopback fabric taken", {}, deadline); !taken) return fail(taken.error());
  return std::make_unique<MemoryFabric>("loopback", group.rank(), std::move(peers), own->contributions.data(),
                                        options.arena_bytes, std::move(mappings));
}

}  // namespace holdfast::fabrics
