#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gram.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

#ifndef HOLDFAST_KERNELS_GRAM_TILES
#define HOLDFAST_KERNELS_GRAM_TILES
namespace holdfast::kernels {
namespace {

/// Lanes that a block's products are summed in, whatever the vector width.
constexpr std::size_t kLanes = 8;
/// Columns converted to fp64 at a time: a tile's rows of this length stay in L1.
constexpr std::size_t kStripElements = 256;
/// Rows and columns of a register tile: 12 running sums leave room for the operands in 16 vector registers.
constexpr int kTileRows = 4;
constexpr int kTileColumns = 3;

struct Tile {
  int row;
  int rows;
  int column;
  int columns;
  std::size_t sums;  ///< offset of its running sums
};

struct Tiling {
  std::vector<Tile> tiles;
  std::size_t sums = 0;

  /// Covers the upper triangle of n x n; tiles on the diagonal compute a few entries below it, too.
  explicit Tiling(int n) {
    for (int row = 0; row < n; row += kTileRows) {
      int const rows = std::min(kTileRows, n - row);
      for (int column = row; column < n; column += kTileColumns) {
        int const columns = std::min(kTileColumns, n - column);
        tiles.push_back(Tile{row, rows, column, columns, sums});
        sums += static_cast<std::size_t>(rows * columns) * kLanes;
      }
    }
  }
};

}  // namespace
}  // namespace holdfast::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

/// sums += products of kRows x kColumns rows over a strip, lane by lane.
///
/// The product of two float32 values is exact in fp64, so a fused multiply-add rounds like a multiplication and an
/// addition; for other operands the two are kept apart.
template <int kRows, int kColumns, bool kExact>
HWY_NOINLINE void multiply_tile(double const* HWY_RESTRICT rows, double const* HWY_RESTRICT columns,
                                std::size_t elements, double* HWY_RESTRICT sums) {
  hn::CappedTag<double, kLanes> const d;
  using V = hn::Vec<decltype(d)>;
  for (std::size_t lane = 0; lane < kLanes; lane += hn::Lanes(d)) {
    V sum[kRows][kColumns];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int c = 0; c < kColumns; ++c)
        sum[r][c] = hn::Load(d, sums + static_cast<std::size_t>(r * kColumns + c) * kLanes + lane);
    for (std::size_t i = lane; i < elements; i += kLanes) {
      V column[kColumns];
#pragma GCC unroll 3
      for (int c = 0; c < kColumns; ++c)
        column[c] = hn::Load(d, columns + static_cast<std::size_t>(c) * kStripElements + i);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        V const row = hn::Load(d, rows + static_cast<std::size_t>(r) * kStripElements + i);
#pragma GCC unroll 3
        for (int c = 0; c < kColumns; ++c) {
          if constexpr (kExact) {
            sum[r][c] = hn::MulAdd(row, column[c], sum[r][c]);
          } else {
            sum[r][c] = hn::Add(sum[r][c], hn::Mul(row, column[c]));
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int c = 0; c < kColumns; ++c)
        hn::Store(sum[r][c], d, sums + static_cast<std::size_t>(r * kColumns + c) * kLanes + lane);
  }
}

template <int kRows, bool kExact>
HWY_INLINE void multiply_columns(int columns, double const* a, double const* b, std::size_t elements, double* sums) {
  switch (columns) {
    case 1:
      return multiply_tile<kRows, 1, kExact>(a, b, elements, sums);
    case 2:
      return multiply_tile<kRows, 2, kExact>(a, b, elements, sums);
    default:
      return multiply_tile<kRows, 3, kExact>(a, b, elements, sums);
  }
}

template <bool kExact>
HWY_INLINE void multiply(Tile const& tile, double const* strip, std::size_t elements, double* sums) {
  double const* const a = strip + static_cast<std::size_t>(tile.row) * kStripElements;
  double const* const b = strip + static_cast<std::size_t>(tile.column) * kStripElements;
  switch (tile.rows) {
    case 1:
      return multiply_columns<1, kExact>(tile.columns, a, b, elements, sums + tile.sums);
    case 2:
      return multiply_columns<2, kExact>(tile.columns, a, b, elements, sums + tile.sums);
    case 3:
      return multiply_columns<3, kExact>(tile.columns, a, b, elements, sums + tile.sums);
    default:
      return multiply_columns<4, kExact>(tile.columns, a, b, elements, sums + tile.sums);
  }
}

/// One row of a strip in fp64, minus the centre, padded with zeros (which add nothing) to whole lanes.
template <class Format>
HWY_INLINE void convert(std::byte const* row, std::byte const* center, std::size_t from, std::size_t elements,
                        double* HWY_RESTRICT strip) {
  auto const load = [](auto d, std::byte const* data, std::size_t element) HWY_ATTR {
    if constexpr (std::is_same_v<typename Format::Compute, double>) {
      return Format::load(d, data, element);
    } else {
      return hn::PromoteTo(d, Format::load(hn::Rebind<float, decltype(d)>(), data, element));
    }
  };
  auto* const out = reinterpret_cast<std::byte*>(strip);
  if (center == nullptr) {
    for_each_vector<double>(elements, [=](auto d, std::size_t i) HWY_ATTR {
      store_lanes(d, load(d, row, from + i), out + i * sizeof(double));
    });
  } else {
    for_each_vector<double>(elements, [=](auto d, std::size_t i) HWY_ATTR {
      store_lanes(d, hn::Sub(load(d, row, from + i), load(d, center, from + i)), out + i * sizeof(double));
    });
  }
  for (std::size_t i = elements; i % kLanes != 0; ++i) strip[i] = 0;
}

template <class Format>
HWY_NOINLINE void gram(Rows const& rows, std::byte const* center, double* packed) {
  int const n = rows.count();
  Tiling const tiling(n);
  auto const strip = hwy::AllocateAligned<double>(static_cast<std::size_t>(n) * kStripElements);
  auto const sums = hwy::AllocateAligned<double>(tiling.sums);
  bool const exact = std::is_same_v<typename Format::Compute, float> && center == nullptr;

  for (std::size_t block = 0; block < rows.elements; block += kBlockElements) {
    std::size_t const block_end = std::min(block + kBlockElements, rows.elements);
    std::fill_n(sums.get(), tiling.sums, 0.0);
    for (std::size_t from = block; from < block_end; from += kStripElements) {
      std::size_t const elements = std::min(kStripElements, block_end - from);
      for (int row = 0; row < n; ++row)
        convert<Format>(rows.data[static_cast<std::size_t>(row)], center, from, elements,
                        strip.get() + static_cast<std::size_t>(row) * kStripElements);
      for (auto const& tile : tiling.tiles) {
        if (exact) {
          multiply<true>(tile, strip.get(), elements, sums.get());
        } else {
          multiply<false>(tile, strip.get(), elements, sums.get());
        }
      }
    }
    for (auto const& tile : tiling.tiles) {
      double const* lanes = sums.get() + tile.sums;
      for (int i = tile.row; i < tile.row + tile.rows; ++i) {
        // Row i of the packed triangle starts at its diagonal entry.
        std::size_t const start = static_cast<std::size_t>(i) * static_cast<std::size_t>(n) -
                                  static_cast<std::size_t>(i) * static_cast<std::size_t>(i - 1) / 2;
        for (int j = tile.column; j < tile.column + tile.columns; ++j, lanes += kLanes) {
          if (j < i) continue;
          packed[start + static_cast<std::size_t>(j - i)] +=
              ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
        }
      }
    }
  }
}

void gram_rows(Rows const& rows, std::byte const* center, double* packed) {
  with_float_format(rows.dtype, [&](auto format) HWY_ATTR { gram<decltype(format)>(rows, center, packed); });
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(gram_rows);

void accumulate_gram(Rows const& rows, std::byte const* center, std::span<double> packed_upper) {
  if (rows.count() == 0 || rows.elements == 0) return;
  HWY_DYNAMIC_DISPATCH(gram_rows)(rows, center, packed_upper.data());
}

}  // namespace holdfast::kernels
#endif
