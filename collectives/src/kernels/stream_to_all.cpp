#include <array>
#include <cstdint>
#include <vector>

#include <hwy/cache_control.h>

#include "kernels/digest.hpp"
#include "kernels/highway.hpp"
#include "kernels/kernels.hpp"

#ifndef HOLDFAST_KERNELS_STREAM_TO_ALL
#define HOLDFAST_KERNELS_STREAM_TO_ALL
namespace holdfast::kernels {

/// The same for all instruction sets, so that one pointer fits all of their functions.
struct StreamedSum {
  enum class Kind { multiply_sum, divide_sum, weighted };
  Kind kind;
  std::byte const* const* rows;
  std::byte* const* destinations;
  std::size_t destination_count;
  std::size_t elements;
  float scale;           ///< what the plain sum is multiplied with or divided by
  float const* weights;  ///< one per row
  std::uint32_t* digest;
};

}  // namespace holdfast::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/stream_to_all.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::kernels::HWY_NAMESPACE {
namespace {

constexpr std::size_t kGroup = Digester::kLanes;  // elements that are on their way at a time
using Kind = StreamedSum::Kind;

template <std::size_t kRows, Kind kKind>
HWY_NOINLINE bool stream_sum(StreamedSum const& work) {
  hn::CappedTag<float, 8> const d;
  hn::Rebind<std::uint32_t, decltype(d)> const du;
  constexpr std::size_t kVectors = kGroup / hn::MaxLanes(d);
  std::size_t const lanes = hn::Lanes(d);
  std::array<std::byte const*, kRows> row;
  std::array<float, kRows> weight{};
  for (std::size_t r = 0; r < kRows; ++r) {
    row[r] = work.rows[r];
    if (kKind == Kind::weighted) weight[r] = work.weights[r];
  }
  auto const term = [&](std::size_t r, std::size_t at) HWY_ATTR {
    auto const value = Float32Format::load(d, row[r], at);
    return kKind == Kind::weighted ? hn::Mul(hn::Set(d, weight[r]), value) : value;
  };
  auto const scale = hn::Set(d, work.scale);
  auto const multiplier = hn::Set(du, Digester::kMultiplier);

  hn::Vec<decltype(du)> digest[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) digest[v] = hn::LoadU(du, work.digest + v * lanes);
  auto bad = hn::Zero(d);
  for (std::size_t begin = 0; begin < work.elements; begin += kGroup) {
    hn::Vec<decltype(d)> sum[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      auto const at = begin + v * lanes;
      sum[v] = term(0, at);
      for (std::size_t r = 1; r < kRows; ++r) sum[v] = hn::Add(sum[v], term(r, at));
      if (kKind == Kind::multiply_sum) sum[v] = hn::Mul(sum[v], scale);
      if (kKind == Kind::divide_sum) sum[v] = hn::Div(sum[v], scale);
      bad = hn::Or(bad, hn::VecFromMask(d, is_non_finite(d, sum[v])));
      digest[v] = hn::Add(hn::Mul(digest[v], multiplier), hn::BitCast(du, sum[v]));
    }
    for (std::size_t to = 0; to < work.destination_count; ++to) {
      auto* const out = reinterpret_cast<float*>(work.destinations[to]) + begin;
      for (std::size_t v = 0; v < kVectors; ++v) hn::Stream(sum[v], d, out + v * lanes);
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(digest[v], du, work.digest + v * lanes);
  // Streamed stores are weakly ordered: without this, a flag written next could be seen before them.
  hwy::FlushStream();
  return hn::AllFalse(d, hn::MaskFromVec(bad));
}

template <std::size_t kRows>
bool stream_sum_of(StreamedSum const& work) {
  switch (work.kind) {
    case Kind::multiply_sum:
      return stream_sum<kRows, Kind::multiply_sum>(work);
    case Kind::divide_sum:
      return stream_sum<kRows, Kind::divide_sum>(work);
    default:
      return stream_sum<kRows, Kind::weighted>(work);
  }
}

bool stream_rows(StreamedSum const& work, std::size_t rows) {
  switch (rows) {
    case 1:
      return stream_sum_of<1>(work);
    case 2:
      return stream_sum_of<2>(work);
    case 3:
      return stream_sum_of<3>(work);
    case 4:
      return stream_sum_of<4>(work);
    case 5:
      return stream_sum_of<5>(work);
    case 6:
      return stream_sum_of<6>(work);
    case 7:
      return stream_sum_of<7>(work);
    default:
      return stream_sum_of<8>(work);
  }
}

}  // namespace
}  // namespace holdfast::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::kernels {

HWY_EXPORT(stream_rows);

namespace {

bool is_suited(DType dtype, std::size_t rows, std::size_t elements, std::span<std::byte* const> destinations) {
  constexpr std::size_t kSmall = 1024;  // below, waiting for streamed stores to drain costs more than it saves
  constexpr std::uintptr_t kLine = 64;
  if (dtype != DType::float32 || rows < 1 || rows > 8 || elements < kSmall || elements % Digester::kLanes != 0)
    return false;
  for (auto const* const destination : destinations)
    if (reinterpret_cast<std::uintptr_t>(destination) % kLine != 0) return false;
  return true;
}

bool stream(StreamedSum work, std::size_t rows, Digester& digester) {
  bool is_finite = true;
  digester.fold(work.elements * sizeof(float), [&](std::uint32_t* lanes) {
    work.digest = lanes;
    is_finite = HWY_DYNAMIC_DISPATCH(stream_rows)(work, rows);
  });
  return is_finite;
}

StreamedSum plain_sum(std::uint64_t divisor) {
  StreamedSum work{};
  bool const is_power_of_two = (divisor & (divisor - 1)) == 0;  // then the reciprocal is exact
  work.kind = is_power_of_two ? StreamedSum::Kind::multiply_sum : StreamedSum::Kind::divide_sum;
  work.scale = is_power_of_two ? 1.0F / static_cast<float>(divisor) : static_cast<float>(divisor);
  return work;
}

}  // namespace

std::optional<bool> average_to_all(Rows const& rows, std::uint64_t divisor, std::span<std::byte* const> destinations,
                                   Digester& digester) {
  if (!is_suited(rows.dtype, rows.data.size(), rows.elements, destinations)) return std::nullopt;
  auto work = plain_sum(divisor);
  work.rows = rows.data.data();
  work.destinations = destinations.data();
  work.destination_count = destinations.size();
  work.elements = rows.elements;
  return stream(work, rows.data.size(), digester);
}

bool combine_to_all(Rows const& rows, Combination const& combination, std::span<std::byte* const> destinations,
                    Digester& digester) {
  std::vector<std::byte const*> terms;
  std::vector<float> weights;
  for (std::size_t row = 0; row < rows.data.size(); ++row) {
    if (combination.coefficients[row] == 0) continue;
    terms.push_back(rows.data[row]);
    weights.push_back(static_cast<float>(combination.coefficients[row]));
  }
  if (!is_suited(rows.dtype, terms.size(), rows.elements, destinations)) return false;
  auto work = plain_sum(terms.size());
  if (!combination.equal_weights) work.kind = StreamedSum::Kind::weighted;
  work.rows = terms.data();
  work.weights = weights.data();
  work.destinations = destinations.data();
  work.destination_count = destinations.size();
  work.elements = rows.elements;
  stream(work, terms.size(), digester);
  return true;
}

}  // namespace holdfast::kernels
#endif
