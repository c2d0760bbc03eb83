#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>

namespace holdfast::fabrics {

/// Hands out parts of one address range, lowest fit first; joins neighbours when they come back.
///
/// Threads: all functions from any thread.
class RegionAllocator {
 public:
  static constexpr std::size_t kAlignment = 4096;  // whole pages: two members never write to one cache line or page

  /// @param begin first offset to hand out, a multiple of kAlignment
  RegionAllocator(std::size_t begin, std::size_t end);

  struct Allocation {
    std::size_t offset = 0;
    bool is_fresh = false;  ///< never handed out before, so still zero
  };
  /// Nothing when no gap is large enough.
  [[nodiscard]] std::optional<Allocation> allocate(std::size_t bytes);
  void release(std::size_t offset);

 private:
  std::mutex mutex_;
  std::map<std::size_t, std::size_t> free_;  // offset -> bytes
  std::map<std::size_t, std::size_t> used_;
  std::size_t high_water_;
};

}  // namespace holdfast::fabrics
