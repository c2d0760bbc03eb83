#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/coordinate.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

#ifndef HOLDFAST_KERNELS_COORDINATE_NETWORK
#define HOLDFAST_KERNELS_COORDINATE_NETWORK
namespace holdfast::kernels {
namespace {

struct Comparator {
  int low;   ///< receives the smaller value
  int high;  ///< receives the larger value
};

/// Which sorted values are kept, and the comparators that put them in place.
struct Network {
  std::vector<Comparator> comparators;
  int first = 0;
  int last = 0;  ///< inclusive

  /// Batcher's odd-even merge sort for any n (Knuth 5.2.2, algorithm M), without comparators whose results nobody
  /// reads.
  Network(int n, CoordinateKernel const& kernel) {
    switch (kernel.kind) {
      case CoordinateKernel::Kind::median:
        first = (n - 1) / 2;
        last = n / 2;
        break;
      case CoordinateKernel::Kind::median_lower:
        first = last = (n - 1) / 2;
        break;
      case CoordinateKernel::Kind::trimmed_mean:
        first = kernel.trim;
        last = n - kernel.trim - 1;
        break;
      case CoordinateKernel::Kind::closest_to_median:
      case CoordinateKernel::Kind::closest_to_trimmed_mean:
        first = 0;
        last = n - 1;
        break;
      case CoordinateKernel::Kind::majority:
        return;  // nothing to sort
    }
    int top = 1;
    while (top < n) top *= 2;
    for (int p = top / 2; p > 0; p /= 2) {
      int q = top / 2;
      int r = 0;
      int distance = p;
      while (true) {
        for (int i = 0; i + distance < n; ++i)
          if ((i & p) == r) comparators.push_back({i, i + distance});
        if (q == p) break;
        distance = q - p;
        q /= 2;
        r = p;
      }
    }
    std::vector<char> needed(static_cast<std::size_t>(n), 0);
    for (int wire = first; wire <= last; ++wire) needed[static_cast<std::size_t>(wire)] = 1;
    std::vector<Comparator> kept;
    for (auto it = comparators.rbegin(); it != comparators.rend(); ++it) {
      auto& low = needed[static_cast<std::size_t>(it->low)];
      auto& high = needed[static_cast<std::size_t>(it->high)];
      if (low == 0 && high == 0) continue;
      low = high = 1;
      kept.push_back(*it);
    }
    comparators.assign(kept.rbegin(), kept.rend());
  }
};

/// What the values of a column are compared with.
struct Center {
  int first;  ///< the mean of these sorted values, inclusive
  int last;

  Center(int n, CoordinateKernel const& kernel)
      : first(kernel.kind == CoordinateKernel::Kind::closest_to_median ? (n - 1) / 2 : kernel.trim),
        last(kernel.kind == CoordinateKernel::Kind::closest_to_median ? n / 2 : n - kernel.trim - 1) {}
};

/// Of one column, in row order: the values that are closest to the centre, the lower row first among equals, ascending.
inline std::vector<double> closest_values(std::vector<double> const& column, double center, int keep) {
  std::vector<int> rows(column.size());
  std::iota(rows.begin(), rows.end(), 0);
  auto const value = [&](int row) { return column[static_cast<std::size_t>(row)]; };
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int a, int b) { return std::abs(value(a) - center) < std::abs(value(b) - center); });
  std::vector<double> kept;
  for (int i = 0; i < keep; ++i) kept.push_back(value(rows[static_cast<std::size_t>(i)]));
  std::sort(kept.begin(), kept.end(),
            [](double a, double b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); });
  return kept;
}

}  // namespace
}  // namespace holdfast::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

/// Integers in the order of the floating-point values, -0 below +0: their minimum and maximum mean the same on every
/// instruction set. The mapping is its own inverse.
template <class D>
HWY_INLINE Vector<D> swap_order(D d, Vector<D> bits) {
  using Key = hn::TFromD<D>;
  constexpr Key kMagnitude = static_cast<Key>(~(Key{1} << (sizeof(Key) * 8 - 1)));
  auto const negative = hn::BroadcastSignBit(bits);
  return hn::Xor(bits, hn::And(negative, hn::Set(d, kMagnitude)));
}

/// A strip of all rows is sorted at a time, in L1.
constexpr std::size_t kStripBytes = 16384;

/// The sorted rows of a strip: key k of element i at keys[k * strip + i].
template <class T>
struct SortedStrip {
  using Key = hwy::MakeSigned<T>;
  Key const* keys;
  std::size_t strip;

  template <class D>
  HWY_INLINE Vector<D> value(D d, std::size_t sorted_row, std::size_t element) const {
    hn::Rebind<Key, D> const di;
    return hn::BitCast(
        d, swap_order(di, load_lanes(di, reinterpret_cast<std::byte const*>(keys + sorted_row * strip + element))));
  }
  /// The same in fp64: exact.
  template <class D>
  HWY_INLINE Vector<D> wide(D d, std::size_t sorted_row, std::size_t element) const {
    if constexpr (std::is_same_v<T, double>) {
      return value(d, sorted_row, element);
    } else {
      return hn::PromoteTo(d, value(hn::Rebind<float, D>(), sorted_row, element));
    }
  }
};

/// The mean of the sorted values first..last.
template <class Format>
HWY_INLINE void mean_of_middle(SortedStrip<typename Format::Compute> const& sorted, Network const& network,
                               std::size_t from, std::size_t elements, std::byte* out) {
  using T = typename Format::Compute;
  auto const first = static_cast<std::size_t>(network.first);
  auto const last = static_cast<std::size_t>(network.last);
  T const kept = static_cast<T>(last - first + 1);
  for_each_vector<T>(elements, [=](auto d, std::size_t i) HWY_ATTR {
    auto sum = sorted.value(d, first, i);
    for (std::size_t k = first + 1; k <= last; ++k) sum = hn::Add(sum, sorted.value(d, k, i));
    if (last != first) sum = hn::Div(sum, hn::Set(d, kept));
    Format::store(d, sum, out, from + i);
  });
}

/// One column by the definition, for those in which two values are equally far from the centre.
template <class Format>
HWY_NOINLINE void closest_of_column(Rows const& rows, CoordinateKernel const& kernel, std::size_t element,
                                    std::byte* out) {
  using T = typename Format::Compute;
  hn::CappedTag<T, 1> const d;
  std::vector<double> column;
  for (auto const* const row : rows.data)
    column.push_back(static_cast<double>(hn::GetLane(Format::load(d, row, element))));
  auto sorted = column;
  std::sort(sorted.begin(), sorted.end());
  Center const middle(rows.count(), kernel);
  double center = 0;
  for (int k = middle.first; k <= middle.last; ++k) center += sorted[static_cast<std::size_t>(k)];
  center /= middle.last - middle.first + 1;
  T sum = -T{0};
  for (double const value : closest_values(column, center, kernel.keep)) sum += static_cast<T>(value);
  Format::store(d, hn::Set(d, sum / static_cast<T>(kernel.keep)), out, element);
}

/// The values closest to a centre are neighbours in sorted order: of the two ends of a window that is still too wide,
/// the farther one goes. Value s leaves on the left when it is farther than value s + keep.
template <class Format>
HWY_INLINE void mean_of_closest(SortedStrip<typename Format::Compute> const& sorted, Rows const& rows,
                                CoordinateKernel const& kernel, std::size_t from, std::size_t elements,
                                std::byte* out) {
  using T = typename Format::Compute;
  Center const middle(rows.count(), kernel);
  auto const n = rows.data.size();
  auto const keep = static_cast<std::size_t>(kernel.keep);
  std::size_t const drop = n - keep;
  auto const first = static_cast<std::size_t>(middle.first);
  auto const last = static_cast<std::size_t>(middle.last);
  for_each_vector<double>(elements, [&](auto d, std::size_t i) HWY_ATTR {
    hn::Rebind<T, decltype(d)> const dt;
    auto center = sorted.wide(d, first, i);
    for (std::size_t k = first + 1; k <= last; ++k) center = hn::Add(center, sorted.wide(d, k, i));
    center = hn::Div(center, hn::Set(d, static_cast<double>(last - first + 1)));
    auto const leaves_left = [&](std::size_t s) HWY_ATTR {
      return hn::Gt(hn::Sub(center, sorted.wide(d, s, i)), hn::Sub(sorted.wide(d, s + keep, i), center));
    };
    auto const nothing = hn::Set(d, -0.0);  // adding it changes no value, zeros of either sign included
    auto ties = hn::MaskFromVec(hn::Zero(d));
    auto sum = hn::Set(dt, -T{0});
    for (std::size_t k = 0; k < n; ++k) {
      auto value = sorted.wide(d, k, i);
      if (k < drop) {
        auto const other = sorted.wide(d, k + keep, i);
        auto const is_tie = hn::Eq(hn::Sub(center, value), hn::Sub(other, center));
        ties = hn::Or(ties, hn::And(is_tie, hn::Ne(value, other)));
        value = hn::IfThenElse(leaves_left(k), nothing, value);
      }
      if (k >= keep) value = hn::IfThenElse(leaves_left(k - keep), value, nothing);
      if constexpr (std::is_same_v<T, double>) {
        sum = hn::Add(sum, value);
      } else {
        sum = hn::Add(sum, hn::DemoteTo(dt, value));
      }
    }
    if (hn::AllFalse(d, ties)) {
      Format::store(dt, hn::Div(sum, hn::Set(dt, static_cast<T>(keep))), out, from + i);
    } else {
      for (std::size_t lane = 0; lane < hn::Lanes(d); ++lane)
        closest_of_column<Format>(rows, kernel, from + i + lane, out);
    }
  });
}

/// +1 if more values are positive than negative, else -1.
template <class Format>
HWY_NOINLINE void majority(Rows const& rows, std::byte* out) {
  using T = typename Format::Compute;
  for_each_vector<T>(rows.elements, [&](auto d, std::size_t i) HWY_ATTR {
    auto const zero = hn::Zero(d);
    auto const one = hn::Set(d, T{1});
    auto votes = zero;
    for (auto const* const row : rows.data) {
      auto const value = Format::load(d, row, i);
      votes = hn::Add(votes, hn::IfThenElseZero(hn::Gt(value, zero), one));
      votes = hn::Sub(votes, hn::IfThenElseZero(hn::Lt(value, zero), one));
    }
    Format::store(d, hn::IfThenElse(hn::Gt(votes, zero), one, hn::Neg(one)), out, i);
  });
}

template <class Format>
HWY_NOINLINE void coordinate_strips(Rows const& rows, CoordinateKernel const& kernel, Network const& network,
                                    std::byte* out) {
  using T = typename Format::Compute;
  using Key = hwy::MakeSigned<T>;
  if (kernel.kind == CoordinateKernel::Kind::majority) return majority<Format>(rows, out);
  bool const is_closest = kernel.kind == CoordinateKernel::Kind::closest_to_median ||
                          kernel.kind == CoordinateKernel::Kind::closest_to_trimmed_mean;
  auto const n = rows.data.size();
  hn::ScalableTag<T> const d;
  hn::Rebind<Key, decltype(d)> const dk;
  std::size_t const lanes = hn::Lanes(d);
  std::size_t const strip = std::clamp<std::size_t>(kStripBytes / (n * sizeof(Key)) / 16 * 16, 16, 256);
  auto const keys = hwy::AllocateAligned<Key>(n * strip);

  for (std::size_t from = 0; from < rows.elements; from += strip) {
    std::size_t const elements = std::min(strip, rows.elements - from);
    for (std::size_t row = 0; row < n; ++row) {
      Key* const to = keys.get() + row * strip;
      std::byte const* const data = rows.data[row];
      for_each_vector<T>(elements, [=](auto dt, std::size_t i) HWY_ATTR {
        hn::Rebind<Key, decltype(dt)> const di;
        store_lanes(di, swap_order(di, hn::BitCast(di, Format::load(dt, data, from + i))),
                    reinterpret_cast<std::byte*>(to + i));
      });
      // The last vector of a short strip sorts lanes that nobody reads.
      for (std::size_t i = elements; i % lanes != 0; ++i) to[i] = 0;
    }
    for (auto const& comparator : network.comparators) {
      Key* const HWY_RESTRICT low = keys.get() + static_cast<std::size_t>(comparator.low) * strip;
      Key* const HWY_RESTRICT high = keys.get() + static_cast<std::size_t>(comparator.high) * strip;
      for (std::size_t i = 0; i < elements; i += lanes) {
        auto const a = hn::Load(dk, low + i);
        auto const b = hn::Load(dk, high + i);
        hn::Store(hn::Min(a, b), dk, low + i);
        hn::Store(hn::Max(a, b), dk, high + i);
      }
    }
    SortedStrip<T> const sorted{keys.get(), strip};
    if (is_closest) {
      mean_of_closest<Format>(sorted, rows, kernel, from, elements, out);
    } else {
      mean_of_middle<Format>(sorted, network, from, elements, out);
    }
  }
}

void coordinate_rows(Rows const& rows, CoordinateKernel const& kernel, Network const& network, std::byte* out) {
  with_float_format(rows.dtype,
                    [&](auto format) HWY_ATTR { coordinate_strips<decltype(format)>(rows, kernel, network, out); });
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(coordinate_rows);

void coordinate(Rows const& rows, CoordinateKernel const& kernel, std::byte* out) {
  if (rows.count() == 0 || rows.elements == 0) return;
  Network const network(rows.count(), kernel);
  HWY_DYNAMIC_DISPATCH(coordinate_rows)(rows, kernel, network, out);
}

}  // namespace holdfast::kernels
#endif
