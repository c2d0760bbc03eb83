#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

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
  ThreadMemory(std::shared_ptr<LazyPages> own_contributions, std::size_t arena_bytes)
      : control(sizeof(Control)), contributions(std::move(own_contributions)), results(arena_bytes) {}
  LazyPages control;
  std::shared_ptr<LazyPages> contributions;  // goes on into the next view
  LazyPages results;
};

class LoopbackFabric final : public MemoryFabric {
 public:
  LoopbackFabric(int rank, std::vector<PeerMemory> peers, std::shared_ptr<LazyPages> pages,
                 std::shared_ptr<MemoryArena> contributions, std::shared_ptr<MemoryArena> results, Suspect suspect)
      : MemoryFabric("loopback", rank, std::move(peers), std::move(contributions), std::move(results),
                     std::move(suspect)),
        pages_(std::move(pages)) {}
  [[nodiscard]] std::shared_ptr<LazyPages> const& pages() const { return pages_; }

 private:
  std::shared_ptr<LazyPages> pages_;
};

/// Where the members of this process find each other's memory, by a number that travels.
class Directory {
 public:
  static Directory& instance() {
    static Directory directory;
    return directory;
  }
  std::uint64_t add(std::shared_ptr<ThreadMemory> memory) {
    std::lock_guard const lock(mutex_);
    entries_[++last_] = std::move(memory);
    return last_;
  }
  void remove(std::uint64_t number) {
    std::lock_guard const lock(mutex_);
    entries_.erase(number);
  }
  /// Null when its member gave up meanwhile.
  std::shared_ptr<ThreadMemory> find(std::uint64_t number) {
    std::lock_guard const lock(mutex_);
    auto const entry = entries_.find(number);
    return entry == entries_.end() ? nullptr : entry->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<ThreadMemory>> entries_;
  std::uint64_t last_ = 0;
};

class Listing {
 public:
  explicit Listing(std::shared_ptr<ThreadMemory> memory) : number_(Directory::instance().add(std::move(memory))) {}
  Listing(Listing const&) = delete;
  Listing& operator=(Listing const&) = delete;
  ~Listing() { Directory::instance().remove(number_); }
  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  std::uint64_t number_;
};

struct Handle {
  std::int64_t pid = 0;
  std::uint64_t number = 0;
};

}  // namespace

Outcome<std::unique_ptr<Fabric>> create_loopback(FabricContext const& context) {
  std::shared_ptr<LazyPages> pages;
  std::shared_ptr<MemoryArena> contributions;
  if (auto const* const previous = dynamic_cast<LoopbackFabric const*>(context.previous)) {
    pages = previous->pages();
    contributions = previous->contributions();
  } else {
    pages = std::make_shared<LazyPages>(context.arena_bytes);
    contributions = std::make_shared<MemoryArena>(pages, pages->data(), context.arena_bytes);
  }
  auto const own = std::make_shared<ThreadMemory>(pages, context.arena_bytes);
  Listing const listing(own);
  Handle const handle{::getpid(), listing.number()};
  auto const handles = context.all_gather("loopback", std::as_bytes(std::span(&handle, 1)));
  if (!handles) return fail(handles.error());

  std::vector<PeerMemory> peers;
  for (auto const& bytes : *handles) {
    Handle peer;
    if (bytes.size() != sizeof peer)
      return fail(Errc::corrupt_message, "loopback fabric: a member sent a handle of the wrong size");
    std::memcpy(&peer, bytes.data(), sizeof peer);
    if (peer.pid != ::getpid())
      throw Error(Errc::environment,
                  "the loopback fabric joins threads of one process, but the members are processes; use fabric=shm");
    // A member may end while others still look at its words, so everyone holds everyone's memory.
    auto const memory = Directory::instance().find(peer.number);
    if (memory == nullptr) return fail(Errc::environment, "loopback fabric: a member gave up opening it");
    peers.push_back({reinterpret_cast<Control*>(memory->control.data()), memory->contributions->data(),
                     memory->results.data(), context.arena_bytes, memory});
  }
  // Nobody may take back what not all have found yet.
  if (auto const taken = context.all_gather("loopback taken", {}); !taken) return fail(taken.error());
  auto results = std::make_shared<MemoryArena>(own, own->results.data(), context.arena_bytes);
  return std::make_unique<LoopbackFabric>(context.rank(), std::move(peers), std::move(pages), std::move(contributions),
                                          std::move(results), context.suspect());
}

}  // namespace holdfast::fabrics
