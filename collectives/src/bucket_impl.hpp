#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

#include <holdfast/collectives/bucket.hpp>

#include "arena.hpp"

namespace holdfast {

struct Bucket::Impl {
  Impl(ArenaPool& pool, std::size_t count, DType type)
      : elements(count),
        dtype(type),
        contribution(pool.allocate(fabrics::ArenaUse::contribution, bytes())),
        results{pool.allocate(fabrics::ArenaUse::result, bytes()), pool.allocate(fabrics::ArenaUse::result, bytes())} {}

  std::size_t elements;
  DType dtype;
  ArenaMemory contribution;
  ArenaMemory results[2];
  std::atomic<int> current{0};

  void touch() {
    if (bytes() == 0) return;
    for (auto const* const memory : {&contribution, &results[0], &results[1]}) std::memset(memory->data(), 0, bytes());
  }
  [[nodiscard]] int next() const { return 1 - current.load(std::memory_order_acquire); }
  [[nodiscard]] std::size_t bytes() const { return elements * element_bytes(dtype); }
};

}  // namespace holdfast
