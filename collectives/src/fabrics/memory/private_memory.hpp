#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "fabrics/fabric.hpp"
#include "fabrics/memory/region_allocator.hpp"

namespace holdfast::fabrics {

/// Pages that appear when touched, in large pages where the system has them.
class Pages {
 public:
  /// @throws Error environment when the address space is not to be had
  explicit Pages(std::size_t bytes);
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&&) = delete;
  ~Pages();
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_;
  std::size_t bytes_;
};

/// Buffers of messages. Their memory is used again and stays mapped as long as the pool: a peer that was stopped may
/// still read from or write to a buffer of a request that never finished.
///
/// Threads: all functions from any thread. Must outlive its buffers.
class MessagePool {
 public:
  class Buffer {
   public:
    Buffer() = default;
    Buffer(MessagePool& pool, std::byte* data, std::size_t capacity)
        : pool_(&pool), data_(data), capacity_(capacity) {}
    Buffer(Buffer&& other) noexcept
        : pool_(other.pool_), data_(std::exchange(other.data_, nullptr)), capacity_(other.capacity_) {}
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(data_, other.data_);
      std::swap(capacity_, other.capacity_);
      return *this;
    }
    ~Buffer() {
      if (data_ != nullptr) pool_->give_back(data_, capacity_);
    }
    [[nodiscard]] std::byte* data() const { return data_; }

   private:
    MessagePool* pool_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t capacity_ = 0;
  };

  /// Uninitialised, 64-byte aligned.
  [[nodiscard]] Buffer take(std::size_t bytes);

 private:
  void give_back(std::byte* data, std::size_t capacity);

  std::mutex mutex_;
  std::multimap<std::size_t, std::byte*> idle_;
  std::vector<Pages> pages_;
};

/// Arena memory of a fabric that copies.
///
/// Threads: all functions from any thread.
class PrivateArena final : public Arena {
 public:
  explicit PrivateArena(std::size_t bytes) : pages_(bytes), allocator_(0, bytes) {}

  [[nodiscard]] std::byte* allocate(std::size_t bytes) override;
  void release(std::byte* memory) override;
  /// From now on nothing is handed out a second time: a late message may still land in it.
  void keep_released() { keeps_released_.store(true); }

 private:
  Pages pages_;
  RegionAllocator allocator_;
  std::atomic<bool> keeps_released_{false};
};

}  // namespace holdfast::fabrics
