#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace holdfast::pipeline {

struct Shard {
  std::size_t begin = 0;  ///< first element
  std::size_t elements = 0;
};

/// Who owns which part of a contribution: rank j the j-th run of ceil(elements / owners), rounded up to whole cache
/// lines of the widest type so that two owners never write to one line. The last shards may be short or empty.
///
/// Result bits of Gram rules depend on this layout (guarantee G4).
[[nodiscard]] inline std::vector<Shard> shard_layout(std::size_t elements, int owners, std::size_t granularity = 32) {
  auto const count = static_cast<std::size_t>(owners);
  std::size_t const run = ((elements + count - 1) / count + granularity - 1) / granularity * granularity;
  std::vector<Shard> shards(count);
  for (std::size_t owner = 0; owner < count; ++owner) {
    std::size_t const begin = std::min(elements, owner * run);
    shards[owner] = {begin, std::min(run, elements - begin)};
  }
  return shards;
}

/// `owners` runs of exactly `elements_each`.
[[nodiscard]] inline std::vector<Shard> equal_layout(std::size_t elements_each, int owners) {
  std::vector<Shard> shards(static_cast<std::size_t>(owners));
  for (std::size_t owner = 0; owner < shards.size(); ++owner) shards[owner] = {owner * elements_each, elements_each};
  return shards;
}

}  // namespace holdfast::pipeline
