#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/int8.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

/// Whole numbers from -127 to 127 of the scale. Rounded to nearest, ties to even.
struct Int8 {
  static constexpr std::size_t kBlock = 256;
  static constexpr std::size_t kScaleBytes = LongScale::kBytes;
  static constexpr std::size_t kCodeBits = 8;
  static constexpr float kLargest = 127.0F;

  static void store_flag(std::byte* to) { LongScale::store_flag(to); }

  class Encoder {
   public:
    explicit Encoder(std::uint32_t magnitude)
        : scale_(LongScale::for_magnitude(magnitude, kLargest)), inverse_(1.0F / scale_) {}
    void store_scale(std::byte* to) const { LongScale::store(scale_, to); }

    template <class D>
    HWY_INLINE hn::Vec<Int32<D>> code(D d, hn::Vec<D> value) const {
      Int32<D> const di;
      auto const y = hn::Mul(value, hn::Set(d, inverse_));
      auto const clamped = hn::Min(hn::Max(y, hn::Set(d, -kLargest)), hn::Set(d, kLargest));
      return hn::And(hn::NearestInt(clamped), hn::Set(di, 0xFF));
    }

   private:
    float scale_;
    float inverse_;
  };

  class Decoder {
   public:
    explicit Decoder(std::byte const* scale) : scale_(LongScale::load(scale)) {}
    [[nodiscard]] bool is_zero() const { return scale_ == 0; }

    template <class D>
    HWY_INLINE hn::Vec<D> value(D d, hn::Vec<Int32<D>> code) const {
      auto const number = hn::ShiftRight<24>(hn::ShiftLeft<24>(code));  // brings the sign along
      return hn::Mul(hn::ConvertTo(d, number), hn::Set(d, scale_));
    }

   private:
    float scale_;
  };
};

bool encode(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  return encode_blocks<Int8>(values, elements, scales, codes);
}
void decode(Sections from, std::size_t elements, float* out) {
  decode_blocks<Int8>(from, elements, Store{out});
}
void accumulate(Sections from, std::size_t elements, float coefficient, float* sum) {
  decode_blocks<Int8>(from, elements, Accumulate{coefficient, sum});
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

Entry int8_entry() {
  return {.name = "int8_b256",
          .short_name = "int8",
          .id = 5,
          .block_elements = 256,
          .scale_bytes = LongScale::kBytes,
          .code_bits = 8,
          .summary = "whole numbers to 127; for results that all receive",
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
                           std::size_t elements) { return find_bad_scale<LongScale>(from.scales, 256, elements); }};
}

}  // namespace holdfast::codecs
#endif
