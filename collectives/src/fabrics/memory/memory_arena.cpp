#include "fabrics/memory/memory_arena.hpp"

#include <cstring>

namespace holdfast::fabrics {

std::byte* MemoryArena::allocate(std::size_t bytes) {
  auto const allocation = allocator_.allocate(bytes);
  if (!allocation) return nullptr;
  std::byte* const memory = base_ + allocation->offset;
  if (!allocation->is_fresh) std::memset(memory, 0, bytes);
  return memory;
}

}  // namespace holdfast::fabrics
