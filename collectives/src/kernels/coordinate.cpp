#include <algorithm>
#include <cstdint>
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

template <class Format>
HWY_NOINLINE void coordinate_strips(Rows const& rows, Network const& network, std::byte* out) {
  using T = typename Format::Compute;
  using Key = hwy::MakeSigned<T>;
  auto const n = rows.data.size();
  hn::ScalableTag<T> const d;
  hn::Rebind<Key, decltype(d)> const dk;
  std::size_t const lanes = hn::Lanes(d);
  std::size_t const strip = std::clamp<std::size_t>(kStripBytes / (n * sizeof(Key)) / 16 * 16, 16, 256);
  auto const keys = hwy::AllocateAligned<Key>(n * strip);
  T const kept = static_cast<T>(network.last - network.first + 1);

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
    Key const* const first = keys.get() + static_cast<std::size_t>(network.first) * strip;
    auto const more = static_cast<std::size_t>(network.last - network.first);
    for_each_vector<T>(elements, [=](auto dt, std::size_t i) HWY_ATTR {
      hn::Rebind<Key, decltype(dt)> const di;
      auto const value = [=](Key const* key) HWY_ATTR {
        return hn::BitCast(dt, swap_order(di, load_lanes(di, reinterpret_cast<std::byte const*>(key))));
      };
      auto sum = value(first + i);
      for (std::size_t k = 1; k <= more; ++k) sum = hn::Add(sum, value(first + k * strip + i));
      if (more != 0) sum = hn::Div(sum, hn::Set(dt, kept));
      Format::store(dt, sum, out, from + i);
    });
  }
}

void coordinate_rows(Rows const& rows, Network const& network, std::byte* out) {
  with_float_format(rows.dtype, [&](auto format) HWY_ATTR { coordinate_strips<decltype(format)>(rows, network, out); });
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
  HWY_DYNAMIC_DISPATCH(coordinate_rows)(rows, network, out);
}

}  // namespace holdfast::kernels
#endif
