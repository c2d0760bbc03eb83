#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/combine.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

/// Rows whose pointers stay in registers while a column block is summed; more rows go through a partial sum in L1.
constexpr std::size_t kRowsAtOnce = 8;
constexpr std::size_t kPartialElements = 2048;

/// Sets or tests lanes without leaving the vector registers inside the loop.
template <class D>
HWY_INLINE bool any_set(D d, Vector<D> mask_bits) {
  return !hn::AllFalse(d, hn::MaskFromVec(mask_bits));
}

template <class Format>
struct Divisor {
  using T = typename Format::Compute;
  T value;
  T reciprocal;
  bool exact;  ///< a power of two: multiplying by the reciprocal gives the bits of the division

  explicit Divisor(std::uint64_t divisor)
      : value(static_cast<T>(divisor)), reciprocal(T{1} / value), exact((divisor & (divisor - 1)) == 0) {}

  template <class D>
  HWY_INLINE Vector<D> divide(D d, Vector<D> sum) const {
    return hn::Div(sum, hn::Set(d, value));
  }
  template <class D>
  HWY_INLINE Vector<D> scale(D d, Vector<D> sum) const {
    return hn::Mul(sum, hn::Set(d, reciprocal));
  }
};

/// The mean of `kRows` rows straight to memory.
template <class Format, std::size_t kRows, bool kScale>
HWY_INLINE bool average_few(std::byte const* const* rows, std::size_t elements, Divisor<Format> divisor,
                            std::byte* out) {
  using T = typename Format::Compute;
  std::array<std::byte const*, kRows> row;
  for (std::size_t r = 0; r < kRows; ++r) row[r] = rows[r];

  hn::ScalableTag<T> const full;
  auto bad = hn::Zero(full);
  bool finite = true;
  for_each_vector<T>(elements, [&](auto d, std::size_t i) HWY_ATTR {
    auto sum = Format::load(d, row[0], i);
    for (std::size_t r = 1; r < kRows; ++r) sum = hn::Add(sum, Format::load(d, row[r], i));
    if constexpr (kScale) {
      sum = divisor.scale(d, sum);
    } else {
      sum = divisor.divide(d, sum);
    }
    auto const non_finite = is_non_finite(d, sum);
    if constexpr (std::is_same_v<std::remove_const_t<decltype(d)>, std::remove_const_t<decltype(full)>>) {
      bad = hn::Or(bad, hn::VecFromMask(d, non_finite));
    } else {
      finite = finite && hn::AllFalse(d, non_finite);
    }
    Format::store(d, sum, out, i);
  });
  return finite && !any_set(full, bad);
}

/// partial = (first ? 0 : partial) + rows, in order.
template <class Format>
HWY_INLINE void add_rows(std::byte const* const* rows, std::size_t count, std::size_t from, std::size_t elements,
                         bool first, typename Format::Compute* HWY_RESTRICT partial) {
  using T = typename Format::Compute;
  auto* const bytes = reinterpret_cast<std::byte*>(partial);
  std::size_t r = 0;
  if (first) {
    for_each_vector<T>(elements, [&](auto d, std::size_t i) HWY_ATTR {
      store_lanes(d, Format::load(d, rows[0], from + i), bytes + i * sizeof(T));
    });
    r = 1;
  }
  for (; r + 4 <= count; r += 4) {
    auto const* const a = rows[r];
    auto const* const b = rows[r + 1];
    auto const* const c = rows[r + 2];
    auto const* const e = rows[r + 3];
    for_each_vector<T>(elements, [=](auto d, std::size_t i) HWY_ATTR {
      auto sum = load_lanes(d, bytes + i * sizeof(T));
      sum = hn::Add(sum, Format::load(d, a, from + i));
      sum = hn::Add(sum, Format::load(d, b, from + i));
      sum = hn::Add(sum, Format::load(d, c, from + i));
      sum = hn::Add(sum, Format::load(d, e, from + i));
      store_lanes(d, sum, bytes + i * sizeof(T));
    });
  }
  for (; r < count; ++r) {
    auto const* const row = rows[r];
    for_each_vector<T>(elements, [=](auto d, std::size_t i) HWY_ATTR {
      auto const sum = hn::Add(load_lanes(d, bytes + i * sizeof(T)), Format::load(d, row, from + i));
      store_lanes(d, sum, bytes + i * sizeof(T));
    });
  }
}

template <class Format>
HWY_NOINLINE bool average_many(std::byte const* const* rows, std::size_t count, std::size_t elements,
                               Divisor<Format> divisor, std::byte* out) {
  using T = typename Format::Compute;
  HWY_ALIGN std::array<T, kPartialElements> partial;
  hn::ScalableTag<T> const full;
  auto bad = hn::Zero(full);
  bool finite = true;
  for (std::size_t from = 0; from < elements; from += kPartialElements) {
    std::size_t const block = std::min(kPartialElements, elements - from);
    add_rows<Format>(rows, count, from, block, true, partial.data());
    for_each_vector<T>(block, [&](auto d, std::size_t i) HWY_ATTR {
      auto sum = load_lanes(d, reinterpret_cast<std::byte const*>(partial.data() + i));
      sum = divisor.exact ? divisor.scale(d, sum) : divisor.divide(d, sum);
      auto const non_finite = is_non_finite(d, sum);
      if constexpr (std::is_same_v<std::remove_const_t<decltype(d)>, std::remove_const_t<decltype(full)>>) {
        bad = hn::Or(bad, hn::VecFromMask(d, non_finite));
      } else {
        finite = finite && hn::AllFalse(d, non_finite);
      }
      Format::store(d, sum, out, from + i);
    });
  }
  return finite && !any_set(full, bad);
}

template <class Format, std::size_t kRows>
HWY_NOINLINE bool average_fixed(std::byte const* const* rows, std::size_t elements, Divisor<Format> divisor,
                                std::byte* out) {
  return divisor.exact ? average_few<Format, kRows, true>(rows, elements, divisor, out)
                       : average_few<Format, kRows, false>(rows, elements, divisor, out);
}

bool average_rows(std::byte const* const* rows, std::size_t count, std::size_t elements, DType dtype, std::uint64_t by,
                  std::byte* out) {
  return with_float_format(dtype, [=](auto format) HWY_ATTR {
    using Format = decltype(format);
    Divisor<Format> const divisor(by);
    switch (count) {
      case 1:
        return average_fixed<Format, 1>(rows, elements, divisor, out);
      case 2:
        return average_fixed<Format, 2>(rows, elements, divisor, out);
      case 3:
        return average_fixed<Format, 3>(rows, elements, divisor, out);
      case 4:
        return average_fixed<Format, 4>(rows, elements, divisor, out);
      case 5:
        return average_fixed<Format, 5>(rows, elements, divisor, out);
      case 6:
        return average_fixed<Format, 6>(rows, elements, divisor, out);
      case 7:
        return average_fixed<Format, 7>(rows, elements, divisor, out);
      case kRowsAtOnce:
        return average_fixed<Format, kRowsAtOnce>(rows, elements, divisor, out);
      default:
        return average_many<Format>(rows, count, elements, divisor, out);
    }
  });
}

/// partial = (first ? 0 : partial) + sum of kTerms products, each product rounded before it is added.
template <class Format, std::size_t kTerms>
HWY_INLINE void add_products(std::byte const* const* rows, typename Format::Compute const* coefficients,
                             std::size_t from, std::size_t elements, bool first, std::byte* partial) {
  using T = typename Format::Compute;
  std::array<std::byte const*, kTerms> row;
  std::array<T, kTerms> coefficient;
  for (std::size_t t = 0; t < kTerms; ++t) {
    row[t] = rows[t];
    coefficient[t] = coefficients[t];
  }
  if (first) {
    for_each_vector<T>(elements, [=](auto d, std::size_t i) HWY_ATTR {
      auto sum = hn::Mul(hn::Set(d, coefficient[0]), Format::load(d, row[0], from + i));
      for (std::size_t t = 1; t < kTerms; ++t)
        sum = hn::Add(sum, hn::Mul(hn::Set(d, coefficient[t]), Format::load(d, row[t], from + i)));
      store_lanes(d, sum, partial + i * sizeof(T));
    });
  } else {
    for_each_vector<T>(elements, [=](auto d, std::size_t i) HWY_ATTR {
      auto sum = load_lanes(d, partial + i * sizeof(T));
      for (std::size_t t = 0; t < kTerms; ++t)
        sum = hn::Add(sum, hn::Mul(hn::Set(d, coefficient[t]), Format::load(d, row[t], from + i)));
      store_lanes(d, sum, partial + i * sizeof(T));
    });
  }
}

template <class Format>
HWY_NOINLINE void weighted_sum(std::byte const* const* rows, double const* coefficients, std::size_t count,
                               std::size_t elements, std::byte* out) {
  using T = typename Format::Compute;
  std::vector<T> rounded(count);
  for (std::size_t t = 0; t < count; ++t) rounded[t] = static_cast<T>(coefficients[t]);
  HWY_ALIGN std::array<T, kPartialElements> partial;
  auto* const bytes = reinterpret_cast<std::byte*>(partial.data());
  for (std::size_t from = 0; from < elements; from += kPartialElements) {
    std::size_t const block = std::min(kPartialElements, elements - from);
    std::size_t t = 0;
    for (; t + 4 <= count; t += 4) add_products<Format, 4>(rows + t, rounded.data() + t, from, block, t == 0, bytes);
    for (; t < count; ++t) add_products<Format, 1>(rows + t, rounded.data() + t, from, block, t == 0, bytes);
    for_each_vector<T>(block, [&](auto d, std::size_t i)
                                  HWY_ATTR { Format::store(d, load_lanes(d, bytes + i * sizeof(T)), out, from + i); });
  }
}

void weighted_rows(std::byte const* const* rows, double const* coefficients, std::size_t count, std::size_t elements,
                   DType dtype, std::byte* out) {
  with_float_format(
      dtype, [=](auto format) HWY_ATTR { weighted_sum<decltype(format)>(rows, coefficients, count, elements, out); });
}

/// One vector of each of kVectors neighbouring groups: the terms in order, each product rounded before it is added.
template <class Format, std::size_t kVectors, bool kWeighted, class D>
HWY_INLINE void sum_terms(D d, std::byte const* const* rows, typename Format::Compute const* coefficients,
                          std::size_t count, std::size_t at, Divisor<Format> const& divisor, std::byte* out) {
  std::size_t const lanes = hn::Lanes(d);
  Vector<D> sum[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    sum[v] = Format::load(d, rows[0], at + v * lanes);
    if constexpr (kWeighted) sum[v] = hn::Mul(hn::Set(d, coefficients[0]), sum[v]);
  }
  for (std::size_t t = 1; t < count; ++t) {
    std::byte const* const row = rows[t];
    for (std::size_t v = 0; v < kVectors; ++v) {
      auto const value = Format::load(d, row, at + v * lanes);
      if constexpr (kWeighted) {
        sum[v] = hn::Add(sum[v], hn::Mul(hn::Set(d, coefficients[t]), value));
      } else {
        sum[v] = hn::Add(sum[v], value);
      }
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) {
    if constexpr (!kWeighted) sum[v] = divisor.exact ? divisor.scale(d, sum[v]) : divisor.divide(d, sum[v]);
    Format::store(d, sum[v], out, at + v * lanes);
  }
}

/// A combination of rows that lie in L1: all terms of a few vectors at a time, nothing goes through memory between.
template <class Format, bool kWeighted>
HWY_NOINLINE void sum_short(std::byte const* const* rows, typename Format::Compute const* coefficients,
                            std::size_t count, std::size_t from, std::size_t elements, std::byte* out) {
  using T = typename Format::Compute;
  constexpr std::size_t kVectors = 4;
  hn::ScalableTag<T> const d;
  hn::CappedTag<T, 1> const d1;
  Divisor<Format> const divisor(count);
  std::size_t const lanes = hn::Lanes(d);
  std::size_t const end = from + elements;
  std::size_t at = from;
  for (; at + kVectors * lanes <= end; at += kVectors * lanes)
    sum_terms<Format, kVectors, kWeighted>(d, rows, coefficients, count, at, divisor, out);
  for (; at + lanes <= end; at += lanes)
    sum_terms<Format, 1, kWeighted>(d, rows, coefficients, count, at, divisor, out);
  for (; at < end; ++at) sum_terms<Format, 1, kWeighted>(d1, rows, coefficients, count, at, divisor, out);
}

template <class Format>
HWY_NOINLINE void mix_format(Rows const& rows, Combination const* mixture, std::byte* const* out, std::size_t outputs) {
  using T = typename Format::Compute;
  constexpr std::size_t kMixed = 256;  // of 16 rows so many elements stay in L1
  struct Terms {
    std::size_t begin;
    std::size_t count;
  };
  std::vector<std::byte const*> data;
  std::vector<T> coefficients;
  std::vector<Terms> terms;
  for (std::size_t k = 0; k < outputs; ++k) {
    std::size_t const begin = data.size();
    for (std::size_t row = 0; row < rows.data.size(); ++row) {
      double const c = mixture[k].coefficients[row];
      if (c == 0) continue;
      data.push_back(rows.data[row]);
      coefficients.push_back(static_cast<T>(c));
    }
    terms.push_back({begin, data.size() - begin});
  }
  for (std::size_t from = 0; from < rows.elements; from += kMixed) {
    std::size_t const elements = std::min(kMixed, rows.elements - from);
    for (std::size_t k = 0; k < outputs; ++k) {
      auto const [begin, count] = terms[k];
      if (count == 0) {
        std::size_t const width = sizeof(typename Format::Storage);
        std::fill_n(out[k] + from * width, elements * width, std::byte{0});
      } else if (mixture[k].equal_weights) {
        sum_short<Format, false>(data.data() + begin, nullptr, count, from, elements, out[k]);
      } else {
        sum_short<Format, true>(data.data() + begin, coefficients.data() + begin, count, from, elements, out[k]);
      }
    }
  }
}

void mix_rows(Rows const& rows, Combination const* mixture, std::byte* const* out, std::size_t outputs) {
  with_float_format(rows.dtype,
                    [&](auto format) HWY_ATTR { mix_format<decltype(format)>(rows, mixture, out, outputs); });
}

/// Works on the stored bits: a dtype is (width, exponent mask), nothing is converted.
template <class Bits>
HWY_NOINLINE bool exponents_below(std::byte const* data, std::size_t elements, Bits exponent) {
  hn::ScalableTag<Bits> const full;
  auto worst = hn::Zero(full);
  Bits tail = 0;
  for_each_vector<Bits>(elements, [&](auto d, std::size_t i) HWY_ATTR {
    auto const bits = hn::And(load_lanes(d, data + i * sizeof(Bits)), hn::Set(d, exponent));
    if constexpr (std::is_same_v<std::remove_const_t<decltype(d)>, std::remove_const_t<decltype(full)>>) {
      worst = hn::Max(worst, bits);
    } else {
      tail = std::max(tail, hn::GetLane(bits));
    }
  });
  return tail != exponent && hn::AllFalse(full, hn::Eq(worst, hn::Set(full, exponent)));
}

bool finite_elements(std::byte const* data, std::size_t elements, DType dtype) {
  switch (dtype) {
    case DType::float32:
      return exponents_below<std::int32_t>(data, elements, 0x7F800000);
    case DType::float64:
      return exponents_below<std::int64_t>(data, elements, std::int64_t{0x7FF0000000000000});
    case DType::float16:
      return exponents_below<std::int16_t>(data, elements, 0x7C00);
    case DType::bfloat16:
      return exponents_below<std::int16_t>(data, elements, 0x7F80);
    default:
      return true;
  }
}

template <class From, class To>
HWY_INLINE void convert(std::byte const* from, std::size_t elements, std::byte* to) {
  for_each_vector<float>(elements,
                         [=](auto d, std::size_t i) HWY_ATTR { To::store(d, From::load(d, from, i), to, i); });
}

void widen_row(std::byte const* row, std::size_t elements, DType dtype, std::byte* out) {
  switch (dtype) {
    case DType::float16:
      return convert<Float16Format, Float32Format>(row, elements, out);
    case DType::bfloat16:
      return convert<BFloat16Format, Float32Format>(row, elements, out);
    default:
      return convert<Float32Format, Float32Format>(row, elements, out);
  }
}

void narrow_row(std::byte const* values, std::size_t elements, DType dtype, std::byte* out) {
  switch (dtype) {
    case DType::float16:
      return convert<Float32Format, Float16Format>(values, elements, out);
    case DType::bfloat16:
      return convert<Float32Format, BFloat16Format>(values, elements, out);
    default:
      return convert<Float32Format, Float32Format>(values, elements, out);
  }
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(average_rows);
HWY_EXPORT(weighted_rows);
HWY_EXPORT(mix_rows);
HWY_EXPORT(finite_elements);
HWY_EXPORT(widen_row);
HWY_EXPORT(narrow_row);

Combination Combination::of(std::vector<double> coefficients, double center_coefficient) {
  Combination result{std::move(coefficients), false, center_coefficient};
  double weight = 0;
  int chosen = 0;
  bool equal = center_coefficient == 0;
  for (double const c : result.coefficients) {
    if (c == 0) continue;
    if (chosen == 0) weight = c;
    equal = equal && c == weight;
    ++chosen;
  }
  double const total = weight * chosen;
  constexpr double kRounding = 64 * std::numeric_limits<double>::epsilon();
  result.equal_weights = equal && chosen > 0 && total > 1 - kRounding && total < 1 + kRounding;
  return result;
}

Combination Combination::mean_of(int rows, std::span<int const> chosen) {
  Combination result{std::vector<double>(static_cast<std::size_t>(rows), 0.0), true, 0};
  for (int const row : chosen)
    result.coefficients[static_cast<std::size_t>(row)] = 1.0 / static_cast<double>(chosen.size());
  return result;
}

bool all_finite(std::byte const* data, std::size_t elements, DType dtype) {
  return HWY_DYNAMIC_DISPATCH(finite_elements)(data, elements, dtype);
}

void screen(Rows const& rows, RowMask& non_finite) {
  for (int row = 0; row < rows.count(); ++row)
    if (!non_finite.test(row) && !all_finite(rows.data[static_cast<std::size_t>(row)], rows.elements, rows.dtype))
      non_finite.set(row);
}

bool average(Rows const& rows, std::uint64_t divisor, std::byte* out) {
  if (rows.elements == 0) return true;
  return HWY_DYNAMIC_DISPATCH(average_rows)(rows.data.data(), rows.data.size(), rows.elements, rows.dtype, divisor,
                                            out);
}

void widen(std::byte const* row, std::size_t elements, DType dtype, float* out) {
  HWY_DYNAMIC_DISPATCH(widen_row)(row, elements, dtype, reinterpret_cast<std::byte*>(out));
}

void narrow(float const* values, std::size_t elements, DType dtype, std::byte* out) {
  HWY_DYNAMIC_DISPATCH(narrow_row)(reinterpret_cast<std::byte const*>(values), elements, dtype, out);
}

void combine(Rows const& rows, Combination const& combination, std::byte const* center, std::byte* out) {
  if (rows.elements == 0) return;
  std::vector<std::byte const*> terms;
  std::vector<double> coefficients;
  terms.reserve(rows.data.size() + 1);
  coefficients.reserve(rows.data.size() + 1);
  if (center != nullptr && combination.center_coefficient != 0) {
    terms.push_back(center);
    coefficients.push_back(combination.center_coefficient);
  }
  for (std::size_t row = 0; row < rows.data.size(); ++row) {
    if (combination.coefficients[row] == 0) continue;
    terms.push_back(rows.data[row]);
    coefficients.push_back(combination.coefficients[row]);
  }
  if (terms.empty()) {
    std::fill_n(out, rows.elements * element_bytes(rows.dtype), std::byte{0});
  } else if (combination.equal_weights) {
    HWY_DYNAMIC_DISPATCH(average_rows)(terms.data(), terms.size(), rows.elements, rows.dtype, terms.size(), out);
  } else {
    HWY_DYNAMIC_DISPATCH(weighted_rows)
    (terms.data(), coefficients.data(), terms.size(), rows.elements, rows.dtype, out);
  }
}

void mix(Rows const& rows, std::span<Combination const> mixture, std::span<std::byte* const> out) {
  if (rows.elements == 0) return;
  HWY_DYNAMIC_DISPATCH(mix_rows)(rows, mixture.data(), out.data(), mixture.size());
}

}  // namespace holdfast::kernels
#endif
