#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/e3m0.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

/// Sign and exponent: (-1)^s 2^(eee-7) 2^E with the block's E, which makes the largest magnitude eee = 7. eee = 0 is 0.
struct E3m0 {
  static constexpr std::size_t kBlock = 256;
  static constexpr std::size_t kScaleBytes = 1;
  static constexpr std::size_t kCodeBits = 4;
  static constexpr std::int32_t kHalf = 0x400000;  // carries into the exponent from 1.5 * 2^k on

  static void store_flag(std::byte* to) { *to = std::byte{255}; }

  class Encoder {
   public:
    explicit Encoder(std::uint32_t magnitude) : scale_((static_cast<std::int32_t>(magnitude) + kHalf) >> 23) {}
    void store_scale(std::byte* to) const { *to = static_cast<std::byte>(scale_); }

    template <class D>
    HWY_INLINE hn::Vec<Int32<D>> code(D /*d*/, hn::Vec<D> value) const {
      Int32<D> const di;
      auto const bits = hn::BitCast(di, value);
      // One subtraction rounds and takes the exponent of code 0 away; no finite value overflows it.
      auto const above = hn::Add(hn::And(bits, hn::Set(di, 0x7FFFFFFF)), hn::Set(di, kHalf - (scale_ - 7) * (1 << 23)));
      auto const exponent = hn::ShiftRight<23>(above);
      auto const sign = hn::And(hn::ShiftRight<28>(bits), hn::Set(di, 8));
      return hn::And(hn::Or(exponent, sign), hn::VecFromMask(di, hn::Gt(exponent, hn::Zero(di))));
    }

   private:
    std::int32_t scale_;
  };

  class Decoder {
   public:
    explicit Decoder(std::byte const* scale) : scale_(std::to_integer<std::int32_t>(*scale)) {}
    [[nodiscard]] bool is_zero() const { return scale_ == 0; }

    template <class D>
    HWY_INLINE hn::Vec<D> value(D d, hn::Vec<Int32<D>> code) const {
      Int32<D> const di;
      auto const exponent = hn::And(code, hn::Set(di, 7));
      auto const sign = hn::ShiftLeft<28>(hn::And(code, hn::Set(di, 8)));
      auto const bits = hn::Or(hn::ShiftLeft<23>(hn::Add(exponent, hn::Set(di, scale_ - 7))), sign);
      return hn::BitCast(d, hn::And(bits, hn::VecFromMask(di, hn::Gt(exponent, hn::Zero(di)))));
    }

   private:
    std::int32_t scale_;
  };
};

bool encode(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  return encode_blocks<E3m0>(values, elements, scales, codes);
}
void decode(Sections from, std::size_t elements, float* out) {
  decode_blocks<E3m0>(from, elements, Store{out});
}
void accumulate(Sections from, std::size_t elements, float coefficient, float* sum) {
  decode_blocks<E3m0>(from, elements, Accumulate{coefficient, sum});
}

}  // namespace
}  // namespace holdfast::codecs::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace holdfast::codecs {
namespace {

HWY_EXPORT(encode);
HWY_EXPORT(decode);
HWY_EXPORT(accumulate);

/// The exponent of the largest magnitude, biased as in float32.
struct ExponentScale {
  static constexpr std::size_t kBytes = 1;
  [[nodiscard]] static std::uint32_t bits_at(std::byte const* from) { return std::to_integer<std::uint32_t>(*from); }
  [[nodiscard]] static ScaleFault fault_of(std::byte const* from) {
    auto const scale = bits_at(from);
    if (scale == 255) return ScaleFault::flagged;
    // From 2^-100 to what a value just below 2^120 is rounded up to.
    return scale == 0 || (scale >= 27 && scale <= 247) ? ScaleFault::none : ScaleFault::impossible;
  }
};

}  // namespace

Entry e3m0_entry() {
  return {.name = "e3m0_b256",
          .short_name = "e3m0",
          .id = 2,
          .block_elements = 256,
          .scale_bytes = 1,
          .code_bits = 4,
          .summary = "powers of two; the 4 bits of Streaming DiLoCo",
          .encode = [](float const* values, std::size_t elements, std::byte* scales,
                       std::byte* codes) { return HWY_DYNAMIC_DISPATCH(encode)(values, elements, scales, codes); },
          .decode =
              [](Sections from, std::size_t elements, float* out) {
                HWY_DYNAMIC_DISPATCH(decode)
                (from, elements, out);
              },
          .accumulate =
              [](Sections from, std::size_t elements, float coefficient, float* sum) {
                HWY_DYNAMIC_DISPATCH(accumulate)
                (from, elements, coefficient, sum);
              },
          .find_fault = [](Sections from,
                           std::size_t elements) { return find_bad_scale<ExponentScale>(from.scales, 256, elements); }};
}

}  // namespace holdfast::codecs
#endif
