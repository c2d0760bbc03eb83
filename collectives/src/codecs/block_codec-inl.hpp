// Included once per instruction set by the codecs with a block scale: the loops over blocks and codes. A codec brings a
// Format:
//   kBlock, kScaleBytes, kCodeBits (4 or 8)
//   Encoder(bits of the largest magnitude), store_scale(to), code(d, values): one code per int32 lane
//   Decoder(scale), is_zero(), value(d, codes): the float32 values of int32 lanes
//   store_flag(to)
#if defined(HOLDFAST_CODECS_BLOCK_CODEC_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef HOLDFAST_CODECS_BLOCK_CODEC_INL_HPP
#undef HOLDFAST_CODECS_BLOCK_CODEC_INL_HPP
#else
#define HOLDFAST_CODECS_BLOCK_CODEC_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <hwy/highway.h>

#include "codecs/block_scale.hpp"
#include "codecs/registry.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Int32 = hn::RebindToSigned<D>;
template <class D>
using Byte = hn::Rebind<std::uint8_t, D>;

/// Where decoded values go.
struct Store {
  float* out;
  template <class D>
  HWY_INLINE void operator()(D d, hn::Vec<D> value, std::size_t element) const {
    hn::StoreU(value, d, out + element);
  }
};
struct Accumulate {
  float coefficient;
  float* sum;
  template <class D>
  HWY_INLINE void operator()(D d, hn::Vec<D> value, std::size_t element) const {
    auto const product = hn::Mul(hn::Set(d, coefficient), value);
    hn::StoreU(hn::Add(hn::LoadU(d, sum + element), product), d, sum + element);
  }
};

/// The largest of bits & 0x7fffffff: as integers, so that NaN and infinities are the largest of all.
HWY_INLINE std::uint32_t largest_magnitude(float const* values, std::size_t elements) {
  hn::ScalableTag<std::int32_t> const d;
  std::size_t const lanes = hn::Lanes(d);
  auto const* const bits = reinterpret_cast<std::int32_t const*>(values);
  auto const mask = hn::Set(d, 0x7FFFFFFF);
  auto a = hn::Zero(d);
  auto b = hn::Zero(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= elements; i += 2 * lanes) {
    a = hn::Max(a, hn::And(hn::LoadU(d, bits + i), mask));
    b = hn::Max(b, hn::And(hn::LoadU(d, bits + i + lanes), mask));
  }
  auto largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
  for (; i < elements; ++i) {
    std::int32_t value;
    std::memcpy(&value, values + i, sizeof value);
    largest = std::max(largest, value & 0x7FFFFFFF);
  }
  return static_cast<std::uint32_t>(largest);
}

template <class Encoder>
HWY_INLINE std::uint8_t encode_one(Encoder const& encoder, float value) {
  hn::CappedTag<float, 1> const d;
  return static_cast<std::uint8_t>(hn::GetLane(encoder.code(d, hn::Set(d, value))));
}

template <class Encoder>
HWY_INLINE void encode_bytes(Encoder const& encoder, float const* values, std::size_t elements, std::uint8_t* codes) {
  hn::ScalableTag<float> const d;
  std::size_t const lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= elements; i += lanes) {
    Byte<decltype(d)> const d8;
    hn::StoreU(hn::DemoteTo(d8, encoder.code(d, hn::LoadU(d, values + i))), d8, codes + i);
  }
  for (; i < elements; ++i) codes[i] = encode_one(encoder, values[i]);
}

template <class Encoder>
HWY_INLINE void encode_nibbles(Encoder const& encoder, float const* values, std::size_t elements, std::uint8_t* codes) {
  std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  hn::ScalableTag<float> const d;
  Int32<decltype(d)> const di;
  hn::Repartition<std::uint64_t, decltype(d)> const d64;
  std::size_t const lanes = hn::Lanes(d);
  // The code of an odd lane moves beside that of the even lane before it.
  auto const join = [=](auto code) HWY_ATTR {
    auto const pairs = hn::BitCast(d64, code);
    return hn::BitCast(di, hn::Or(pairs, hn::ShiftRight<28>(pairs)));
  };
  for (; i + 2 * lanes <= elements; i += 2 * lanes) {
    Byte<decltype(d)> const d8;
    auto const first = join(encoder.code(d, hn::LoadU(d, values + i)));
    auto const second = join(encoder.code(d, hn::LoadU(d, values + i + lanes)));
    hn::StoreU(hn::DemoteTo(d8, hn::ConcatEven(di, second, first)), d8, codes + i / 2);
  }
#endif
  for (; i + 1 < elements; i += 2)
    codes[i / 2] = static_cast<std::uint8_t>(encode_one(encoder, values[i]) | encode_one(encoder, values[i + 1]) << 4);
  if (i < elements) codes[i / 2] = encode_one(encoder, values[i]);
}

template <class Format>
HWY_INLINE bool encode_blocks(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  bool flagged = false;
  for (std::size_t begin = 0; begin < elements; begin += Format::kBlock) {
    std::size_t const count = std::min(Format::kBlock, elements - begin);
    std::size_t const code_bytes = (count * Format::kCodeBits + 7) / 8;
    auto const magnitude = largest_magnitude(values + begin, count);
    if (magnitude >= kFlagMagnitude) {
      flagged = true;
      Format::store_flag(scales);
      std::memset(codes, 0, code_bytes);
    } else if (magnitude < kZeroMagnitude) {
      std::memset(scales, 0, Format::kScaleBytes);
      std::memset(codes, 0, code_bytes);
    } else {
      typename Format::Encoder const encoder(magnitude);
      encoder.store_scale(scales);
      auto* const to = reinterpret_cast<std::uint8_t*>(codes);
      if constexpr (Format::kCodeBits == 4) {
        encode_nibbles(encoder, values + begin, count, to);
      } else {
        encode_bytes(encoder, values + begin, count, to);
      }
    }
    scales += Format::kScaleBytes;
    codes += code_bytes;
  }
  return flagged;
}

template <class Decoder, class Sink>
HWY_INLINE void decode_one(Decoder const& decoder, std::uint8_t code, std::size_t element, Sink const& sink) {
  hn::CappedTag<float, 1> const d;
  sink(d, decoder.value(d, hn::Set(Int32<decltype(d)>(), code)), element);
}

template <class Decoder, class Sink>
HWY_INLINE void decode_bytes(Decoder const& decoder, std::uint8_t const* codes, std::size_t begin, std::size_t elements,
                             Sink const& sink) {
  hn::ScalableTag<float> const d;
  std::size_t const lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= elements; i += lanes) {
    auto const code = hn::PromoteTo(Int32<decltype(d)>(), hn::LoadU(Byte<decltype(d)>(), codes + i));
    sink(d, decoder.value(d, code), begin + i);
  }
  for (; i < elements; ++i) decode_one(decoder, codes[i], begin + i, sink);
}

template <class Decoder, class Sink>
HWY_INLINE void decode_nibbles(Decoder const& decoder, std::uint8_t const* codes, std::size_t begin,
                               std::size_t elements, Sink const& sink) {
  std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  hn::ScalableTag<float> const d;
  Int32<decltype(d)> const di;
  Byte<decltype(d)> const d8;
  std::size_t const lanes = hn::Lanes(d);
  for (; i + 2 * lanes <= elements; i += 2 * lanes) {
    auto const bytes = hn::LoadU(d8, codes + i / 2);
    auto const even = hn::And(bytes, hn::Set(d8, 0x0F));
    auto const odd = hn::ShiftRight<4>(bytes);
    sink(d, decoder.value(d, hn::PromoteTo(di, hn::InterleaveLower(d8, even, odd))), begin + i);
    sink(d, decoder.value(d, hn::PromoteTo(di, hn::InterleaveUpper(d8, even, odd))), begin + i + lanes);
  }
#endif
  for (; i < elements; ++i)
    decode_one(decoder, static_cast<std::uint8_t>(codes[i / 2] >> (i % 2 * 4) & 0x0F), begin + i, sink);
}

template <class Sink>
HWY_INLINE void sink_zeros(std::size_t begin, std::size_t elements, Sink const& sink) {
  hn::ScalableTag<float> const d;
  std::size_t const lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= elements; i += lanes) sink(d, hn::Zero(d), begin + i);
  hn::CappedTag<float, 1> const d1;
  for (; i < elements; ++i) sink(d1, hn::Zero(d1), begin + i);
}

template <class Format, class Sink>
HWY_INLINE void decode_blocks(Sections from, std::size_t elements, Sink const& sink) {
  for (std::size_t begin = 0; begin < elements; begin += Format::kBlock) {
    std::size_t const count = std::min(Format::kBlock, elements - begin);
    typename Format::Decoder const decoder(from.scales);
    auto const* const codes = reinterpret_cast<std::uint8_t const*>(from.codes);
    if (decoder.is_zero()) {
      sink_zeros(begin, count, sink);
    } else if constexpr (Format::kCodeBits == 4) {
      decode_nibbles(decoder, codes, begin, count, sink);
    } else {
      decode_bytes(decoder, codes, begin, count, sink);
    }
    from.scales += Format::kScaleBytes;
    from.codes += (count * Format::kCodeBits + 7) / 8;
  }
}

/// The product of a magnitude and a scale with its sign bit; a product of zero stays +0.
template <class D>
HWY_INLINE hn::Vec<D> scaled(D d, hn::Vec<D> magnitude, hn::Vec<Int32<D>> sign_bit, float scale) {
  auto const product = hn::Mul(magnitude, hn::Set(d, scale));
  auto const sign = hn::IfThenZeroElse(hn::Eq(magnitude, hn::Zero(d)), hn::BitCast(d, sign_bit));
  return hn::Or(product, sign);
}

}  // namespace holdfast::codecs::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
