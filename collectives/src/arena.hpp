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

/// One piece of a fabric's arena; goes back when it is destroyed.
class ArenaMemory {
 public:
  ArenaMemory() = default;
  /// @throws Error environment when the arena is full
  ArenaMemory(std::shared_ptr<fabrics::Fabric> fabric, fabrics::ArenaUse use, std::size_t bytes)
      : fabric_(std::move(fabric)), use_(use), memory_(fabric_->allocate(use, bytes)) {
    if (memory_ == nullptr)
      throw Error(Errc::environment, "the communication arena has no room for another " + std::to_string(bytes) +
                                         " bytes; raise HOLDFAST_ARENA_BYTES or free buckets");
  }
  ArenaMemory(ArenaMemory&& other) noexcept
      : fabric_(std::move(other.fabric_)), use_(other.use_), memory_(std::exchange(other.memory_, nullptr)) {}
  ArenaMemory& operator=(ArenaMemory&& other) noexcept {
    std::swap(fabric_, other.fabric_);
    std::swap(use_, other.use_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~ArenaMemory() {
    if (memory_ != nullptr) fabric_->release(use_, memory_);
  }
  [[nodiscard]] std::byte* data() const { return memory_; }

 private:
  std::shared_ptr<fabrics::Fabric> fabric_;
  fabrics::ArenaUse use_ = fabrics::ArenaUse::contribution;
  std::byte* memory_ = nullptr;
};

/// Arena memory for buffers of callers, kept for the next collective of the same size.
///
/// Threads: all functions from any thread.
class StagingPool {
 public:
  explicit StagingPool(std::shared_ptr<fabrics::Fabric> fabric) : fabric_(std::move(fabric)) {}

  [[nodiscard]] ArenaMemory take(fabrics::ArenaUse use, std::size_t bytes) {
    {
      std::lock_guard const lock(mutex_);
      if (auto const idle = idle_.find({use, bytes}); idle != idle_.end()) {
        ArenaMemory memory = std::move(idle->second);
        idle_.erase(idle);
        return memory;
      }
    }
    return ArenaMemory(fabric_, use, bytes);
  }
  void give_back(fabrics::ArenaUse use, std::size_t bytes, ArenaMemory memory) {
    std::lock_guard const lock(mutex_);
    if (idle_.size() < kIdle) idle_.emplace(std::pair(use, bytes), std::move(memory));
  }

 private:
  static constexpr std::size_t kIdle = 32;
  std::shared_ptr<fabrics::Fabric> fabric_;
  std::mutex mutex_;
  std::multimap<std::pair<fabrics::ArenaUse, std::size_t>, ArenaMemory> idle_;
};

}  // namespace holdfast
