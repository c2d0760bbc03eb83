#include <algorithm>
#include <type_traits>

#include <hwy/aligned_allocator.h>
#include <hwy/cache_control.h>

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
/// Rows and columns of a register tile: 12 running sums, or 10 of the upper half of a tile on the diagonal, leave room
/// for the operands in 16 vector registers.
constexpr int kTileRows = 4;
constexpr int kTileColumns = 3;
/// Up to so many rows the working memory is on the stack: calls are short when they come block by block.
constexpr int kFewRows = 16;

struct Tile {
  int row;
  int rows;
  int column;  ///< equal to `row`: the upper half of a square on the diagonal
  int columns;
  std::size_t sums;  ///< offset of its running sums

  [[nodiscard]] bool is_diagonal() const { return column == row; }
};

/// Cuts the upper triangle of n x n into tiles; together they have one set of lanes per entry.
template <class Visit>
void for_each_tile(int n, Visit const& visit) {
  std::size_t sums = 0;
  for (int row = 0; row < n; row += kTileRows) {
    int const rows = std::min(kTileRows, n - row);
    visit(Tile{row, rows, row, rows, sums});
    sums += static_cast<std::size_t>(rows * (rows + 1) / 2) * kLanes;
    for (int column = row + rows; column < n; column += kTileColumns) {
      int const columns = std::min(kTileColumns, n - column);
      visit(Tile{row, rows, column, columns, sums});
      sums += static_cast<std::size_t>(rows * columns) * kLanes;
    }
  }
}

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

/// The same for the pairs (r, c), r <= c, of one set of rows.
template <int kRows, bool kExact>
HWY_NOINLINE void multiply_diagonal(double const* HWY_RESTRICT rows, std::size_t elements, double* HWY_RESTRICT sums) {
  constexpr int kPairs = kRows * (kRows + 1) / 2;
  hn::CappedTag<double, kLanes> const d;
  using V = hn::Vec<decltype(d)>;
  for (std::size_t lane = 0; lane < kLanes; lane += hn::Lanes(d)) {
    V sum[kPairs];
#pragma GCC unroll 10
    for (int pair = 0; pair < kPairs; ++pair)
      sum[pair] = hn::Load(d, sums + static_cast<std::size_t>(pair) * kLanes + lane);
    for (std::size_t i = lane; i < elements; i += kLanes) {
      V row[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) row[r] = hn::Load(d, rows + static_cast<std::size_t>(r) * kStripElements + i);
      int pair = 0;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int c = r; c < kRows; ++c, ++pair) {
          if constexpr (kExact) {
            sum[pair] = hn::MulAdd(row[r], row[c], sum[pair]);
          } else {
            sum[pair] = hn::Add(sum[pair], hn::Mul(row[r], row[c]));
          }
        }
      }
    }
#pragma GCC unroll 10
    for (int pair = 0; pair < kPairs; ++pair)
      hn::Store(sum[pair], d, sums + static_cast<std::size_t>(pair) * kLanes + lane);
  }
}

template <int kRows, bool kExact>
HWY_INLINE void multiply_rows(Tile const& tile, double const* a, double const* b, std::size_t elements, double* sums) {
  if (tile.is_diagonal()) return multiply_diagonal<kRows, kExact>(a, elements, sums);
  switch (tile.columns) {
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
      return multiply_rows<1, kExact>(tile, a, b, elements, sums + tile.sums);
    case 2:
      return multiply_rows<2, kExact>(tile, a, b, elements, sums + tile.sums);
    case 3:
      return multiply_rows<3, kExact>(tile, a, b, elements, sums + tile.sums);
    default:
      return multiply_rows<4, kExact>(tile, a, b, elements, sums + tile.sums);
  }
}

/// The elements of a float32 row to `copy`, past the caches, and in fp64 to the strip: both from one reading.
HWY_INLINE void convert_and_copy(std::byte const* row, std::size_t from, std::size_t elements, std::byte* copy,
                                 double* HWY_RESTRICT strip) {
  std::size_t element = 0;
#if HWY_TARGET != HWY_SCALAR  // where a vector has no halves
  // Whole vectors of float32: a part of one cannot be streamed.
  hn::ScalableTag<float> const df;
  hn::Half<decltype(df)> const dh;
  hn::Rebind<double, decltype(dh)> const d;
  std::size_t const lanes = hn::Lanes(df);
  for (; element + lanes <= elements; element += lanes) {
    auto const value = Float32Format::load(df, row, from + element);
    hn::Stream(value, df, reinterpret_cast<float*>(copy) + from + element);
    hn::StoreU(hn::PromoteTo(d, hn::LowerHalf(dh, value)), d, strip + element);
    hn::StoreU(hn::PromoteTo(d, hn::UpperHalf(dh, value)), d, strip + element + lanes / 2);
  }
#endif
  hn::CappedTag<float, 1> const d1;
  for (; element < elements; ++element) {
    auto const value = Float32Format::load(d1, row, from + element);
    Float32Format::store(d1, value, copy, from + element);
    strip[element] = static_cast<double>(hn::GetLane(value));
  }
}

/// One row of a strip in fp64, minus the centre, padded with zeros (which add nothing) to whole lanes.
template <class Format>
HWY_INLINE void convert(std::byte const* row, std::byte const* center, std::size_t from, std::size_t elements,
                        std::byte* copy, double* HWY_RESTRICT strip) {
  auto const load = [](auto d, std::byte const* data, std::size_t element) HWY_ATTR {
    if constexpr (std::is_same_v<typename Format::Compute, double>) {
      return Format::load(d, data, element);
    } else {
      return hn::PromoteTo(d, Format::load(hn::Rebind<float, decltype(d)>(), data, element));
    }
  };
  auto* const out = reinterpret_cast<std::byte*>(strip);
  if (copy != nullptr && center == nullptr) {
    convert_and_copy(row, from, elements, copy, strip);
  } else if (center == nullptr) {
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

/// @param strip kStripElements values per row
/// @param sums  kLanes values per entry of the triangle
template <class Format>
HWY_INLINE void gram(Rows const& rows, std::byte const* center, std::byte* const* copies, double* strip, double* sums,
                     std::size_t sums_length, double* packed) {
  int const n = rows.count();
  bool const exact = std::is_same_v<typename Format::Compute, float> && center == nullptr;
  for (std::size_t block = 0; block < rows.elements; block += kBlockElements) {
    std::size_t const block_end = std::min(block + kBlockElements, rows.elements);
    std::fill_n(sums, sums_length, 0.0);
    for (std::size_t from = block; from < block_end; from += kStripElements) {
      std::size_t const elements = std::min(kStripElements, block_end - from);
      for (int row = 0; row < n; ++row)
        convert<Format>(rows.data[static_cast<std::size_t>(row)], center, from, elements,
                        copies == nullptr ? nullptr : copies[row],
                        strip + static_cast<std::size_t>(row) * kStripElements);
      for_each_tile(n, [&](Tile const& tile) HWY_ATTR {
        if (exact) {
          multiply<true>(tile, strip, elements, sums);
        } else {
          multiply<false>(tile, strip, elements, sums);
        }
      });
    }
    // Streamed stores are weakly ordered; another thread may go on with this collective.
    if (copies != nullptr) hwy::FlushStream();
    for_each_tile(n, [&](Tile const& tile) {
      double const* lanes = sums + tile.sums;
      for (int i = tile.row; i < tile.row + tile.rows; ++i) {
        // Row i of the packed triangle starts at its diagonal entry.
        std::size_t const start = packed_entries(n) - packed_entries(n - i);
        for (int j = std::max(i, tile.column); j < tile.column + tile.columns; ++j, lanes += kLanes)
          packed[start + static_cast<std::size_t>(j - i)] +=
              ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
      }
    });
  }
}

template <class Format>
HWY_NOINLINE void gram_of_few(Rows const& rows, std::byte const* center, std::byte* const* copies, double* packed) {
  HWY_ALIGN double strip[static_cast<std::size_t>(kFewRows) * kStripElements];
  HWY_ALIGN double sums[packed_entries(kFewRows) * kLanes];
  gram<Format>(rows, center, copies, strip, sums, packed_entries(rows.count()) * kLanes, packed);
}

template <class Format>
HWY_NOINLINE void gram_of_many(Rows const& rows, std::byte const* center, std::byte* const* copies, double* packed) {
  std::size_t const sums_length = packed_entries(rows.count()) * kLanes;
  auto const strip = hwy::AllocateAligned<double>(rows.data.size() * kStripElements);
  auto const sums = hwy::AllocateAligned<double>(sums_length);
  gram<Format>(rows, center, copies, strip.get(), sums.get(), sums_length, packed);
}

void gram_rows(Rows const& rows, std::byte const* center, std::byte* const* copies, double* packed) {
  with_float_format(rows.dtype, [&](auto format) HWY_ATTR {
    if (rows.count() <= kFewRows) {
      gram_of_few<decltype(format)>(rows, center, copies, packed);
    } else {
      gram_of_many<decltype(format)>(rows, center, copies, packed);
    }
  });
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(gram_rows);

void accumulate_gram(Rows const& rows, std::byte const* center, std::span<double> packed_upper,
                     std::span<std::byte* const> copies) {
  if (rows.count() == 0 || rows.elements == 0) return;
  HWY_DYNAMIC_DISPATCH(gram_rows)(rows, center, copies.empty() ? nullptr : copies.data(), packed_upper.data());
}

}  // namespace holdfast::kernels
#endif
