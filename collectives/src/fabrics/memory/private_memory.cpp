#include "fabrics/memory/private_memory.hpp"

#include <cstring>
#include <string>
#include <utility>

#include <sys/mman.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::fabrics {

namespace {

constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Few distinct capacities, so that a returned buffer fits the next exchange of about the same size.
std::size_t rounded_capacity(std::size_t bytes) {
  std::size_t granule = 4096;
  while (granule * 8 < bytes) granule *= 2;
  return (bytes + granule - 1) / granule * granule;
}

}  // namespace

Pages::Pages(std::size_t bytes) : bytes_(bytes) {
  void* const address =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED)
    throw Error(Errc::environment, "cannot reserve " + std::to_string(bytes) +
                                       " bytes of address space; lower HOLDFAST_ARENA_BYTES or raise ulimit -v");
  data_ = static_cast<std::byte*>(address);
  // A message between processes of one host costs a page walk per page; a refusal costs only that time.
  if (bytes >= kLargePage) std::ignore = ::madvise(address, bytes, MADV_HUGEPAGE);
}

Pages::Pages(Pages&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

Pages::~Pages() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

MessagePool::Buffer MessagePool::take(std::size_t bytes) {
  std::size_t const capacity = rounded_capacity(bytes);
  std::lock_guard const lock(mutex_);
  if (auto const idle = idle_.find(capacity); idle != idle_.end()) {
    Buffer buffer(*this, idle->second, capacity);
    idle_.erase(idle);
    return buffer;
  }
  return Buffer(*this, pages_.emplace_back(capacity).data(), capacity);
}

void MessagePool::give_back(std::byte* data, std::size_t capacity) {
  std::lock_guard const lock(mutex_);
  idle_.emplace(capacity, data);
}

std::byte* PrivateArena::allocate(std::size_t bytes) {
  auto const allocation = allocator_.allocate(bytes);
  if (!allocation) return nullptr;
  std::byte* const memory = pages_.data() + allocation->offset;
  if (!allocation->is_fresh) std::memset(memory, 0, bytes);
  return memory;
}

void PrivateArena::release(std::byte* memory) {
  if (!keeps_released_.load()) allocator_.release(static_cast<std::size_t>(memory - pages_.data()));
}

}  // namespace holdfast::fabrics
