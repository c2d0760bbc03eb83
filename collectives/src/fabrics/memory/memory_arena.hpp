#pragma once

#include <cstddef>
#include <memory>

#include "fabrics/fabric.hpp"
#include "fabrics/memory/region_allocator.hpp"

namespace holdfast::fabrics {

/// Hands out parts of a mapping that starts as zeros.
class MemoryArena final : public Arena {
 public:
  /// @param mapping keeps [base, base + bytes) mapped as long as the arena lives
  MemoryArena(std::shared_ptr<void const> mapping, std::byte* base, std::size_t bytes)
      : mapping_(std::move(mapping)), base_(base), allocator_(0, bytes) {}

  [[nodiscard]] std::byte* allocate(std::size_t bytes) override;
  void release(std::byte* memory) override { allocator_.release(offset_of(memory)); }

  [[nodiscard]] std::size_t offset_of(std::byte const* memory) const {
    return static_cast<std::size_t>(memory - base_);
  }

 private:
  std::shared_ptr<void const> mapping_;
  std::byte* base_;
  RegionAllocator allocator_;
};

}  // namespace holdfast::fabrics
