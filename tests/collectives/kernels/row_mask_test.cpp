#include "kernels/row_mask.hpp"

#include <gtest/gtest.h>

namespace holdfast {
namespace {

TEST(RowMask, travels_as_words_and_comes_back) {
  for (int const rows : {0, 1, 63, 64, 65, 1024}) {
    RowMask mask(rows);
    for (int row = 0; row < rows; row += 7) mask.set(row);
    EXPECT_EQ(mask.words().size(), RowMask::words_for(rows));
    EXPECT_EQ(RowMask::from_words(rows, mask.words()), mask);
    EXPECT_EQ(mask.count(), (rows + 6) / 7);
  }
}

TEST(RowMask, drops_bits_beyond_its_rows_that_came_off_the_wire) {
  std::uint64_t const words[] = {~std::uint64_t{0}, ~std::uint64_t{0}};
  EXPECT_EQ(RowMask::from_words(3, words), RowMask::all(3));
  EXPECT_EQ(RowMask::from_words(70, std::span(words).first(1)).count(), 64);
}

TEST(RowMask, combines_sets) {
  RowMask a(5);
  a.set(1);
  a.set(2);
  RowMask b(5);
  b.set(2);
  b.set(4);
  EXPECT_EQ((a & b).indices(), (std::vector<int>{2}));
  EXPECT_EQ((a | b).indices(), (std::vector<int>{1, 2, 4}));
  EXPECT_EQ(a.subtract(b).indices(), (std::vector<int>{1}));
  a.reset(1);
  EXPECT_FALSE(a.any());
}

}  // namespace
}  // namespace holdfast
