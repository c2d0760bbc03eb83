// Included once per instruction set by the kernel units.
#if defined(HOLDFAST_KERNELS_SIMD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef HOLDFAST_KERNELS_SIMD_INL_HPP
#undef HOLDFAST_KERNELS_SIMD_INL_HPP
#else
#define HOLDFAST_KERNELS_SIMD_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <hwy/highway.h>

#include "kernels/kernels.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Vector = hn::Vec<D>;

template <class D>
inline constexpr bool kSingleLane = hn::MaxLanes(D()) == 1;

/// Rows come as bytes without alignment; one lane goes through memcpy since a plain read would need it.
template <class D>
HWY_INLINE Vector<D> load_lanes(D d, std::byte const* from) {
  using T = hn::TFromD<D>;
  if constexpr (kSingleLane<D>) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return hn::Set(d, value);
  } else {
    return hn::LoadU(d, reinterpret_cast<T const*>(from));
  }
}

template <class D>
HWY_INLINE void store_lanes(D d, Vector<D> value, std::byte* to) {
  using T = hn::TFromD<D>;
  if constexpr (kSingleLane<D>) {
    T const lane = hn::GetLane(value);
    std::memcpy(to, &lane, sizeof(T));
  } else {
    hn::StoreU(value, d, reinterpret_cast<T*>(to));
  }
}

/// How elements of a dtype are stored and what they are computed in. `load` and `store` take an element index; D is a
/// vector tag of Compute.
struct Float32Format {
  using Compute = float;
  using Storage = float;
  template <class D>
  static HWY_INLINE Vector<D> load(D d, std::byte const* row, std::size_t element) {
    return load_lanes(d, row + element * sizeof(Storage));
  }
  template <class D>
  static HWY_INLINE void store(D d, Vector<D> value, std::byte* row, std::size_t element) {
    store_lanes(d, value, row + element * sizeof(Storage));
  }
};

struct Float64Format {
  using Compute = double;
  using Storage = double;
  template <class D>
  static HWY_INLINE Vector<D> load(D d, std::byte const* row, std::size_t element) {
    return load_lanes(d, row + element * sizeof(Storage));
  }
  template <class D>
  static HWY_INLINE void store(D d, Vector<D> value, std::byte* row, std::size_t element) {
    store_lanes(d, value, row + element * sizeof(Storage));
  }
};

// The conversions of 16-bit types are spelled in integer operations: the same bits everywhere, and no intermediate
// that a flush-to-zero mode (which training programs turn on) would change.
struct BFloat16Format {
  using Compute = float;
  using Storage = std::uint16_t;
  template <class D>
  static HWY_INLINE Vector<D> load(D d, std::byte const* row, std::size_t element) {
    hn::Rebind<std::uint16_t, D> const d16;
    hn::Rebind<std::uint32_t, D> const d32;
    auto const bits = hn::PromoteTo(d32, load_lanes(d16, row + element * sizeof(Storage)));
    return hn::BitCast(d, hn::ShiftLeft<16>(bits));
  }
  /// Round to nearest, ties to even; NaN stays NaN.
  template <class D>
  static HWY_INLINE void store(D d, Vector<D> value, std::byte* row, std::size_t element) {
    hn::Rebind<std::uint16_t, D> const d16;
    hn::Rebind<std::int32_t, D> const di32;
    hn::Rebind<std::uint32_t, D> const d32;
    auto const bits = hn::BitCast(d32, value);
    auto const odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1U));
    auto const rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFFU))));
    auto const quiet_nan = hn::Or(hn::ShiftRight<16>(bits), hn::Set(d32, 0x40U));
    auto const is_nan = hn::RebindMask(d32, hn::IsNaN(value));
    auto const result = hn::IfThenElse(is_nan, quiet_nan, rounded);
    store_lanes(d16, hn::DemoteTo(d16, hn::BitCast(di32, result)), row + element * sizeof(Storage));
    (void)d;
  }
};

struct Float16Format {
  using Compute = float;
  using Storage = std::uint16_t;
  template <class D>
  static HWY_INLINE Vector<D> load(D d, std::byte const* row, std::size_t element) {
    hn::Rebind<std::uint16_t, D> const d16;
    hn::Rebind<std::int32_t, D> const d32;  // signed: comparison of unsigned lanes is emulated on x86
    auto const bits = hn::BitCast(
        d32, hn::PromoteTo(hn::Rebind<std::uint32_t, D>(), load_lanes(d16, row + element * sizeof(Storage))));
    auto const magnitude = hn::And(bits, hn::Set(d32, 0x7FFF));
    auto const sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000)));
    auto const shifted = hn::ShiftLeft<13>(magnitude);
    auto const rebias = hn::Set(d32, 112 << 23);
    auto normal = hn::Add(shifted, rebias);
    normal = hn::Add(normal, hn::And(hn::VecFromMask(d32, hn::Gt(magnitude, hn::Set(d32, 0x7BFF))), rebias));
    // A half subnormal m * 2^-24 as the difference of two normal numbers.
    auto const base = hn::Set(d32, 113 << 23);
    auto const subnormal = hn::Sub(hn::BitCast(d, hn::Add(shifted, base)), hn::BitCast(d, base));
    auto const is_subnormal = hn::Lt(magnitude, hn::Set(d32, 0x0400));
    auto const result = hn::IfThenElse(is_subnormal, hn::BitCast(d32, subnormal), normal);
    return hn::BitCast(d, hn::Or(result, sign));
  }
  /// Round to nearest, ties to even; above the largest finite value infinity; NaN stays NaN.
  template <class D>
  static HWY_INLINE void store(D d, Vector<D> value, std::byte* row, std::size_t element) {
    hn::Rebind<std::uint16_t, D> const d16;
    hn::Rebind<std::int32_t, D> const d32;
    auto const bits = hn::BitCast(d32, value);
    auto const magnitude = hn::And(bits, hn::Set(d32, 0x7FFFFFFF));
    auto const sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 0x8000));
    auto const odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d32, 1));
    auto const normal =
        hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, hn::Set(d32, 112 << 23)), hn::Add(odd, hn::Set(d32, 0x0FFF))));
    // Adding 0.5 makes the float adder round at the place of a half subnormal's last bit.
    auto const half = hn::Set(d, 0.5F);
    auto const subnormal = hn::Sub(hn::BitCast(d32, hn::Add(hn::BitCast(d, magnitude), half)), hn::BitCast(d32, half));
    auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d32, 0x38800000)), subnormal, normal);
    result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d32, 0x477FFFFF)), hn::Set(d32, 0x7C00), result);
    result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d32, 0x7F800000)), hn::Set(d32, 0x7E00), result);
    store_lanes(d16, hn::DemoteTo(d16, hn::Or(result, sign)), row + element * sizeof(Storage));
  }
};

/// Calls body(tag, element) over all elements: whole vectors, then single lanes. The body sees the same operations for
/// both, so an element's bits do not depend on which of the two it falls into.
template <class T, class Body>
HWY_INLINE void for_each_vector(std::size_t elements, Body const& body) {
  hn::ScalableTag<T> const d;
  std::size_t const lanes = hn::Lanes(d);
  std::size_t element = 0;
  for (; element + lanes <= elements; element += lanes) body(d, element);
  hn::CappedTag<T, 1> const d1;
  for (; element < elements; ++element) body(d1, element);
}

template <class Function>
HWY_INLINE auto with_float_format(DType dtype, Function const& function) {
  switch (dtype) {
    case DType::float64:
      return function(Float64Format{});
    case DType::float16:
      return function(Float16Format{});
    case DType::bfloat16:
      return function(BFloat16Format{});
    default:
      return function(Float32Format{});
  }
}

/// Lanes that are NaN or infinite have all exponent bits set.
template <class D>
HWY_INLINE hn::Mask<D> is_non_finite(D d, Vector<D> value) {
  using Bits = hwy::MakeSigned<hn::TFromD<D>>;
  hn::Rebind<Bits, D> const di;
  constexpr Bits kExponent =
      sizeof(Bits) == 4 ? static_cast<Bits>(0x7F800000) : static_cast<Bits>(std::int64_t{0x7FF0000000000000});
  auto const exponent = hn::Set(di, kExponent);
  return hn::RebindMask(d, hn::Eq(hn::And(hn::BitCast(di, value), exponent), exponent));
}

}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
