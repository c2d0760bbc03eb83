#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "fabrics/fabric.hpp"

namespace holdfast {

/// One piece of an arena; goes back when it is destroyed.
class ArenaMemory {
 public:
  ArenaMemory() = default;
  /// @throws Error environment when the arena is full
  ArenaMemory(std::shared_ptr<fabrics::Arena> arena, std::size_t bytes)
      : arena_(std::move(arena)), memory_(arena_->allocate(bytes)) {
    if (memory_ == nullptr)
      throw Error(Errc::environment, "the communication arena has no room for another " + std::to_string(bytes) +
                                         " bytes; raise HOLDFAST_ARENA_BYTES or free buckets");
  }
  ArenaMemory(ArenaMemory&& other) noexcept
      : arena_(std::move(other.arena_)), memory_(std::exchange(other.memory_, nullptr)) {}
  ArenaMemory& operator=(ArenaMemory&& other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~ArenaMemory() {
    if (memory_ != nullptr) arena_->release(memory_);
  }
  [[nodiscard]] std::byte* data() const { return memory_; }
  [[nodiscard]] std::shared_ptr<fabrics::Arena> const& arena() const { return arena_; }

 private:
  std::shared_ptr<fabrics::Arena> arena_;
  std::byte* memory_ = nullptr;
};

/// The arenas of the current view's fabric, and memory from them for buffers of callers, kept for the next collective
/// of the same size.
///
/// Threads: all functions from any thread.
class ArenaPool {
 public:
  explicit ArenaPool(fabrics::Fabric& fabric) { use(fabric); }

  /// From now on memory comes from this fabric's arenas; what comes back from others is let go.
  void use(fabrics::Fabric& fabric) {
    std::multimap<Key, ArenaMemory> old;
    std::lock_guard const lock(mutex_);
    for (auto const of : {fabrics::ArenaUse::contribution, fabrics::ArenaUse::result}) arena(of) = fabric.arena(of);
    for (auto idle = idle_.begin(); idle != idle_.end();) {
      auto const next = std::next(idle);
      if (idle->second.arena() != arena(idle->first.first)) old.insert(idle_.extract(idle));
      idle = next;
    }
  }
  [[nodiscard]] ArenaMemory allocate(fabrics::ArenaUse use, std::size_t bytes) {
    std::shared_ptr<fabrics::Arena> from;
    {
      std::lock_guard const lock(mutex_);
      from = arena(use);
    }
    return ArenaMemory(std::move(from), bytes);
  }
  [[nodiscard]] ArenaMemory take(fabrics::ArenaUse use, std::size_t bytes) {
    {
      std::lock_guard const lock(mutex_);
      if (auto const idle = idle_.find({use, bytes}); idle != idle_.end()) {
        ArenaMemory memory = std::move(idle->second);
        idle_.erase(idle);
        return memory;
      }
    }
    return allocate(use, bytes);
  }
  void give_back(fabrics::ArenaUse use, std::size_t bytes, ArenaMemory memory) {
    std::lock_guard const lock(mutex_);
    if (idle_.size() < kIdle && memory.arena() == arena(use)) idle_.emplace(Key(use, bytes), std::move(memory));
  }

 private:
  using Key = std::pair<fabrics::ArenaUse, std::size_t>;
  static constexpr std::size_t kIdle = 32;
  [[nodiscard]] std::shared_ptr<fabrics::Arena>& arena(fabrics::ArenaUse use) {
    return arenas_[use == fabrics::ArenaUse::contribution ? 0 : 1];
  }

  std::mutex mutex_;
  std::shared_ptr<fabrics::Arena> arenas_[2];
  std::multimap<Key, ArenaMemory> idle_;
};

}  // namespace holdfast
