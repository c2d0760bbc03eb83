#include "fabrics/memory/region_allocator.hpp"

#include <algorithm>
#include <iterator>

#include <holdfast/runtime/assert.hpp>

namespace holdfast::fabrics {

RegionAllocator::RegionAllocator(std::size_t begin, std::size_t end) : high_water_(begin) {
  free_[begin] = end - begin;
}

std::optional<RegionAllocator::Allocation> RegionAllocator::allocate(std::size_t bytes) {
  std::size_t const wanted = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  std::lock_guard const lock(mutex_);
  auto const gap = std::find_if(free_.begin(), free_.end(), [&](auto const& entry) { return entry.second >= wanted; });
  if (gap == free_.end()) return std::nullopt;
  auto const [offset, available] = *gap;
  free_.erase(gap);
  if (available > wanted) free_[offset + wanted] = available - wanted;
  used_[offset] = wanted;
  bool const is_fresh = offset >= high_water_;
  high_water_ = std::max(high_water_, offset + wanted);
  return Allocation{offset, is_fresh};
}

void RegionAllocator::release(std::size_t offset) {
  std::lock_guard const lock(mutex_);
  auto const entry = used_.find(offset);
  HOLDFAST_ASSERT(entry != used_.end(), "released memory was not allocated from this arena");
  std::size_t begin = entry->first;
  std::size_t bytes = entry->second;
  used_.erase(entry);
  auto const next = free_.lower_bound(begin);
  if (next != free_.begin()) {
    auto const previous = std::prev(next);
    if (previous->first + previous->second == begin) {
      begin = previous->first;
      bytes += previous->second;
      free_.erase(previous);
    }
  }
  if (next != free_.end() && begin + bytes == next->first) {
    bytes += next->second;
    free_.erase(next);
  }
  free_[begin] = bytes;
}

}  // namespace holdfast::fabrics
