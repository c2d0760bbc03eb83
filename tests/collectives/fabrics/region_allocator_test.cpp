#include "fabrics/memory/region_allocator.hpp"

#include <map>
#include <random>

#include <gtest/gtest.h>

namespace holdfast::fabrics {
namespace {

constexpr std::size_t kPage = RegionAllocator::kAlignment;

TEST(RegionAllocator, hands_out_whole_pages_that_do_not_overlap) {
  RegionAllocator allocator(0, 8 * kPage);
  auto const first = allocator.allocate(1);
  auto const second = allocator.allocate(kPage + 1);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->offset % kPage, 0U);
  EXPECT_GE(second->offset, first->offset + kPage);
}

TEST(RegionAllocator, says_no_when_no_gap_is_large_enough) {
  RegionAllocator allocator(0, 2 * kPage);
  EXPECT_FALSE(allocator.allocate(3 * kPage));
  auto const all = allocator.allocate(2 * kPage);
  ASSERT_TRUE(all);
  EXPECT_FALSE(allocator.allocate(1));
  allocator.release(all->offset);
  EXPECT_TRUE(allocator.allocate(2 * kPage));
}

TEST(RegionAllocator, knows_which_memory_was_never_handed_out) {
  RegionAllocator allocator(0, 4 * kPage);
  auto const first = allocator.allocate(kPage);
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->is_fresh);
  allocator.release(first->offset);
  EXPECT_FALSE(allocator.allocate(kPage)->is_fresh);
  EXPECT_TRUE(allocator.allocate(kPage)->is_fresh);
}

TEST(RegionAllocator, joins_neighbours_so_that_nothing_is_lost_over_time) {
  constexpr std::size_t kPages = 64;
  RegionAllocator allocator(0, kPages * kPage);
  std::mt19937 random(7);
  std::map<std::size_t, std::size_t> held;
  for (int step = 0; step < 2000; ++step) {
    if (held.size() > 8 || (!held.empty() && random() % 2 == 0)) {
      auto const victim = std::next(held.begin(), static_cast<long>(random() % held.size()));
      allocator.release(victim->first);
      held.erase(victim);
    } else if (auto const got = allocator.allocate((random() % 8 + 1) * kPage)) {
      held[got->offset] = 0;
    }
  }
  for (auto const& [offset, unused] : held) allocator.release(offset);
  EXPECT_TRUE(allocator.allocate(kPages * kPage));
}

}  // namespace
}  // namespace holdfast::fabrics
