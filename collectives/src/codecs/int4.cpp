#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/int4.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

/// Whole numbers from -7 to 7 of the scale. Rounded to nearest, ties to even.
struct Int4 {
  static constexpr std::size_t kBlock = 64;
  static constexpr std::size_t kScaleBytes = ShortScale::kBytes;
  static constexpr std::size_t kCodeBits = 4;
  static constexpr float kLargest = 7.0F;

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
      auto const clamped = hn::Min(hn::Max(y, hn::Set(d, -kLargest)), hn::Set(d, kLargest));
      return hn::And(hn::NearestInt(clamped), hn::Set(di, 0x0F));
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
      auto const number = hn::ShiftRight<28>(hn::ShiftLeft<28>(code));  // brings the sign along
      return hn::Mul(hn::ConvertTo(d, number), hn::Set(d, scale_));
    }

   private:
    float scale_;
  };
};

bool encode(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  return encode_blocks<Int4>(values, elements, scales, codes);
}
void decode(Sections from, std::size_t elements, float* out) {
  decode_blocks<Int4>(from, elements, Store{out});
}
void accumulate(Sections from, std::size_t elements, float coefficient, float* sum) {
  decode_blocks<Int4>(from, elements, Accumulate{coefficient, sum});
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

Entry int4_entry() {
  return {.name = "int4_b64",
          .short_name = "int4",
          .id = 4,
          .block_elements = 64,
          .scale_bytes = ShortScale::kBytes,
          .code_bits = 4,
          .summary = "whole numbers to 7; a third of the error of e3m0",
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
