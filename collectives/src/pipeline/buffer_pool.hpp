#pragma once

#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <tuple>

#include <sys/mman.h>

namespace holdfast::pipeline {

/// Private memory that is used again: fresh pages of a large buffer would cost more than what is computed in them.
///
/// Threads: all functions from any thread. Must outlive what it hands out.
class BufferPool {
 public:
  using Buffer = std::unique_ptr<std::byte[], void (*)(void*)>;

  /// Uninitialised, 64-byte aligned.
  [[nodiscard]] Buffer take(std::size_t bytes) {
    {
      std::lock_guard const lock(mutex_);
      if (auto const idle = idle_.find(bytes); idle != idle_.end()) {
        Buffer buffer = std::move(idle->second);
        idle_.erase(idle);
        return buffer;
      }
    }
    std::size_t const alignment = bytes < kLargePage ? 64 : kLargePage;
    std::size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
    void* const memory = std::aligned_alloc(alignment, rounded);
    if (memory == nullptr) throw std::bad_alloc();
    // Several rows are read side by side: with small pages each would cost a page walk every few hundred cycles. A
    // refusal costs only that.
    if (alignment == kLargePage) std::ignore = ::madvise(memory, rounded, MADV_HUGEPAGE);
    return Buffer(static_cast<std::byte*>(memory), &std::free);
  }

  void give_back(Buffer buffer, std::size_t bytes) {
    std::lock_guard const lock(mutex_);
    if (idle_.size() < kIdleBuffers) idle_.emplace(bytes, std::move(buffer));
  }

 private:
  static constexpr std::size_t kIdleBuffers = 64;
  static constexpr std::size_t kLargePage = std::size_t{2} << 20;
  std::mutex mutex_;
  std::multimap<std::size_t, Buffer> idle_;
};

}  // namespace holdfast::pipeline
