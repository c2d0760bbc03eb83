#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

constexpr std::size_t kPartialElements = 1024;

struct Product {
  template <class D>
  HWY_INLINE Vector<D> operator()(D /*d*/, Vector<D> a, Vector<D> b) const {
    return hn::Mul(a, b);
  }
};

/// The smaller or larger value; -0 below +0; NaN if either is NaN. Spelled out since the instruction sets' own minimum
/// instructions differ in both points.
template <bool kMax>
struct Extreme {
  template <class D>
  HWY_INLINE Vector<D> operator()(D d, Vector<D> a, Vector<D> b) const {
    using Key = hwy::MakeSigned<hn::TFromD<D>>;
    hn::Rebind<Key, D> const di;
    auto const key = [di](Vector<D> value) HWY_ATTR {
      constexpr Key kMagnitude = static_cast<Key>(~(Key{1} << (sizeof(Key) * 8 - 1)));
      auto const bits = hn::BitCast(di, value);
      return hn::Xor(bits, hn::And(hn::BroadcastSignBit(bits), hn::Set(di, kMagnitude)));
    };
    auto const a_is_less = hn::RebindMask(d, hn::Lt(key(a), key(b)));
    auto const chosen = kMax ? hn::IfThenElse(a_is_less, b, a) : hn::IfThenElse(a_is_less, a, b);
    auto const with_b = hn::IfThenElse(hn::IsNaN(b), b, chosen);
    return hn::IfThenElse(hn::IsNaN(a), a, with_b);
  }
};

template <class Format, class Step>
HWY_NOINLINE void fold(Rows const& rows, Step step, std::byte* out) {
  using T = typename Format::Compute;
  HWY_ALIGN std::array<T, kPartialElements> partial;
  auto* const bytes = reinterpret_cast<std::byte*>(partial.data());
  for (std::size_t from = 0; from < rows.elements; from += kPartialElements) {
    std::size_t const block = std::min(kPartialElements, rows.elements - from);
    for (std::size_t row = 0; row < rows.data.size(); ++row) {
      std::byte const* const data = rows.data[row];
      for_each_vector<T>(block, [=](auto d, std::size_t i) HWY_ATTR {
        auto const value = Format::load(d, data, from + i);
        store_lanes(d, row == 0 ? value : step(d, load_lanes(d, bytes + i * sizeof(T)), value), bytes + i * sizeof(T));
      });
    }
    for_each_vector<T>(block, [=](auto d, std::size_t i)
                                  HWY_ATTR { Format::store(d, load_lanes(d, bytes + i * sizeof(T)), out, from + i); });
  }
}

/// Integer arithmetic is done unsigned: it wraps.
template <class T>
HWY_NOINLINE void fold_integers(Rows const& rows, Reduction reduction, std::byte* out) {
  using U = std::make_unsigned_t<T>;
  std::array<T, kPartialElements> partial;
  std::array<T, kPartialElements> next;
  for (std::size_t from = 0; from < rows.elements; from += kPartialElements) {
    std::size_t const block = std::min(kPartialElements, rows.elements - from);
    std::memcpy(partial.data(), rows.data[0] + from * sizeof(T), block * sizeof(T));
    for (std::size_t row = 1; row < rows.data.size(); ++row) {
      std::memcpy(next.data(), rows.data[row] + from * sizeof(T), block * sizeof(T));
      switch (reduction) {
        case Reduction::sum:
        case Reduction::average:
          for (std::size_t i = 0; i < block; ++i)
            partial[i] = static_cast<T>(static_cast<U>(partial[i]) + static_cast<U>(next[i]));
          break;
        case Reduction::product:
          for (std::size_t i = 0; i < block; ++i)
            partial[i] = static_cast<T>(static_cast<U>(partial[i]) * static_cast<U>(next[i]));
          break;
        case Reduction::min:
          for (std::size_t i = 0; i < block; ++i) partial[i] = std::min(partial[i], next[i]);
          break;
        case Reduction::max:
          for (std::size_t i = 0; i < block; ++i) partial[i] = std::max(partial[i], next[i]);
          break;
      }
    }
    if (reduction == Reduction::average) {
      auto const count = static_cast<T>(rows.data.size());
      for (std::size_t i = 0; i < block; ++i) partial[i] = static_cast<T>(partial[i] / count);
    }
    std::memcpy(out + from * sizeof(T), partial.data(), block * sizeof(T));
  }
}

void fold_rows(Rows const& rows, Reduction reduction, std::byte* out) {
  if (rows.dtype == DType::int32) return fold_integers<std::int32_t>(rows, reduction, out);
  if (rows.dtype == DType::int64) return fold_integers<std::int64_t>(rows, reduction, out);
  with_float_format(rows.dtype, [&](auto format) HWY_ATTR {
    using Format = decltype(format);
    switch (reduction) {
      case Reduction::min:
        return fold<Format>(rows, Extreme<false>{}, out);
      case Reduction::max:
        return fold<Format>(rows, Extreme<true>{}, out);
      default:
        return fold<Format>(rows, Product{}, out);
    }
  });
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(fold_rows);

void reduce(Rows const& rows, Reduction reduction, std::byte* out) {
  if (rows.count() == 0 || rows.elements == 0) return;
  if (is_floating_point(rows.dtype) && reduction == Reduction::sum) {
    average(rows, 1, out);
  } else if (is_floating_point(rows.dtype) && reduction == Reduction::average) {
    average(rows, static_cast<std::uint64_t>(rows.count()), out);
  } else {
    HWY_DYNAMIC_DISPATCH(fold_rows)(rows, reduction, out);
  }
}

}  // namespace holdfast::kernels
#endif
