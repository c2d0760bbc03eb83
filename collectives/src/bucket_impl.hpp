#pragma once

#include <atomic>
#include <cstddef>

#include <holdfast/collectives/bucket.hpp>

#include "arena.hpp"

namespace holdfast {

struct Bucket::Impl {
  Impl(std::shared_ptr<fabrics::Fabric> const& fabric, std::size_t count, DType type)
      : elements(count),
        dtype(type),
        contribution(fabric, fabrics::ArenaUse::contribution, count * element_bytes(type)),
        results{ArenaMemory(fabric, fabrics::ArenaUse::result, count * element_bytes(type)),
                ArenaMemory(fabric, fabrics::ArenaUse::result, count * element_bytes(type))} {}

  std::size_t elements;
  DType dtype;
  ArenaMemory contribution;
  ArenaMemory results[2];
  std::atomic<int> current{0};

  [[nodiscard]] int next() const { return 1 - current.load(std::memory_order_acquire); }
};

}  // namespace holdfast
