#include "pipeline/shard_layout.hpp"

#include <gtest/gtest.h>

namespace holdfast::pipeline {
namespace {

TEST(ShardLayout, covers_every_element_once_for_any_size_and_number_of_owners) {
  for (int owners = 1; owners <= 17; ++owners)
    for (std::size_t const elements : {0, 1, 2, 31, 32, 33, 1000, 4096, 4097, 100'003}) {
      std::size_t next = 0;
      for (auto const& shard : shard_layout(elements, owners)) {
        EXPECT_EQ(shard.begin, next);
        next += shard.elements;
      }
      EXPECT_EQ(next, elements) << owners << " owners";
    }
}

TEST(ShardLayout, begins_shards_on_cache_lines_so_that_owners_never_share_one) {
  for (auto const& shard : shard_layout(1'000'003, 7))
    if (shard.elements > 0) {
      EXPECT_EQ(shard.begin * 2 % 64, 0U);
    }
}

}  // namespace
}  // namespace holdfast::pipeline
