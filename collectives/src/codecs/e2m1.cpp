#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/e2m1.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

/// 4-bit floats: 0, 0.5, 1, 1.5, 2, 3, 4, 6 of the scale, with a sign. Rounded to nearest, ties to the even code.
struct E2m1 {
  static constexpr std::size_t kBlock = 64;
  static constexpr std::size_t kScaleBytes = ShortScale::kBytes;
  static constexpr std::size_t kCodeBits = 4;
  static constexpr float kLargest = 6.0F;

  static void store_flag(std::byte* to) { ShortScale::store_flag(to); }

  class Encoder {
   public:
    explicit Encoder(std::uint32_t magnitude)
        : scale_(ShortScale::for_magnitude(magnitude, kLargest)), inverse_(1.0F / scale_) {}
    void store_scale(std::byte* to) const { ShortScale::store(scale_, to); }

    template <class D>
    HWY_INLINE hn::Vec<Int32<D>> code(D d, hn::Vec<D> value) const {
      Int32<D> const di;
      auto const y = hn::Mul(value, hn::Set(d, inverse_));
      auto const magnitude = hn::Abs(y);
      // The code is the number of thresholds below |y|. A comparison that holds is the integer -1.
      auto below = hn::VecFromMask(d, hn::Gt(magnitude, hn::Set(d, 0.25F)));
      auto count = hn::BitCast(di, below);
      auto const add = [&](auto mask) HWY_ATTR { count = hn::Add(count, hn::BitCast(di, hn::VecFromMask(d, mask))); };
      add(hn::Ge(magnitude, hn::Set(d, 0.75F)));
      add(hn::Gt(magnitude, hn::Set(d, 1.25F)));
      add(hn::Ge(magnitude, hn::Set(d, 1.75F)));
      add(hn::Gt(magnitude, hn::Set(d, 2.5F)));
      add(hn::Ge(magnitude, hn::Set(d, 3.5F)));
      add(hn::Gt(magnitude, hn::Set(d, 5.0F)));
      auto const sign = hn::And(hn::ShiftRight<28>(hn::BitCast(di, value)), hn::Set(di, 8));
      return hn::Or(hn::Neg(count), hn::And(sign, hn::BitCast(di, below)));
    }

   private:
    float scale_;
    float inverse_;
  };

  class Decoder {
   public:
    explicit Decoder(std::byte const* scale) : scale_(ShortScale::load(scale)) {}
    [[nodiscard]] bool is_zero() const { return scale_ == 0; }

    template <class D>
    HWY_INLINE hn::Vec<D> value(D d, hn::Vec<Int32<D>> code) const {
      Int32<D> const di;
      auto const magnitude_code = hn::And(code, hn::Set(di, 7));
      // From code 2 on exponent and digit stand where a float32 has them; below, the value is half the code.
      auto const large = hn::BitCast(d, hn::Add(hn::ShiftLeft<22>(magnitude_code), hn::Set(di, 126 << 23)));
      auto const small = hn::Mul(hn::ConvertTo(d, magnitude_code), hn::Set(d, 0.5F));
      auto const is_small = hn::RebindMask(d, hn::Lt(magnitude_code, hn::Set(di, 2)));
      auto const sign = hn::ShiftLeft<28>(hn::And(code, hn::Set(di, 8)));
      return scaled(d, hn::IfThenElse(is_small, small, large), sign, scale_);
    }

   private:
    float scale_;
  };
};

bool encode(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  return encode_blocks<E2m1>(values, elements, scales, codes);
}
void decode(Sections from, std::size_t elements, float* out) {
  decode_blocks<E2m1>(from, elements, Store{out});
}
void accumulate(Sections from, std::size_t elements, float coefficient, float* sum) {
  decode_blocks<E2m1>(from, elements, Accumulate{coefficient, sum});
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

}  // namespace

Entry e2m1_entry() {
  return {.name = "e2m1_b64",
          .short_name = "e2m1",
          .id = 3,
          .block_elements = 64,
          .scale_bytes = ShortScale::kBytes,
          .code_bits = 4,
          .summary = "4-bit floats; a third of the error of e3m0",
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
                           std::size_t elements) { return find_bad_scale<ShortScale>(from.scales, 64, elements); }};
}

}  // namespace holdfast::codecs
#endif
