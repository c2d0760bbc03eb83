#include "codecs/registry.hpp"
#include "kernels/highway.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codecs/fp8_e4m3.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "codecs/block_codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace holdfast::codecs::HWY_NAMESPACE {
namespace {

/// 8-bit floats with 4 bits of exponent and 3 digits, largest 448. Rounded to nearest, ties to the even code.
struct Fp8E4m3 {
  static constexpr std::size_t kBlock = 256;
  static constexpr std::size_t kScaleBytes = ShortScale::kBytes;
  static constexpr std::size_t kCodeBits = 8;
  static constexpr float kLargest = 448.0F;
  static constexpr std::int32_t kBiasDifference = 127 - 7;
  static constexpr std::int32_t kSmallestNormal = (127 - 6) << 23;

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
      auto const magnitude = hn::Min(hn::Abs(y), hn::Set(d, kLargest));
      auto const bits = hn::BitCast(di, magnitude);
      auto const odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(di, 1));
      auto const normal = hn::Sub(hn::ShiftRight<20>(hn::Add(bits, hn::Add(odd, hn::Set(di, 0x7FFFF)))),
                                  hn::Set(di, kBiasDifference << 3));
      auto const subnormal = hn::NearestInt(hn::Mul(magnitude, hn::Set(d, 512.0F)));
      auto const is_subnormal = hn::Lt(bits, hn::Set(di, kSmallestNormal));
      auto const result = hn::IfThenElse(is_subnormal, subnormal, normal);
      auto const sign = hn::And(hn::ShiftRight<24>(hn::BitCast(di, value)), hn::Set(di, 0x80));
      return hn::Or(result, hn::IfThenZeroElse(hn::Eq(result, hn::Zero(di)), sign));
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
      auto const magnitude = hn::And(code, hn::Set(di, 0x7F));
      auto const normal = hn::BitCast(d, hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(di, kBiasDifference << 23)));
      auto const subnormal = hn::Mul(hn::ConvertTo(d, magnitude), hn::Set(d, 1.0F / 512.0F));
      auto const is_subnormal = hn::RebindMask(d, hn::Lt(magnitude, hn::Set(di, 8)));
      auto const sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(di, 0x80)));
      return scaled(d, hn::IfThenElse(is_subnormal, subnormal, normal), sign, scale_);
    }

   private:
    float scale_;
  };
};

bool encode(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  return encode_blocks<Fp8E4m3>(values, elements, scales, codes);
}
void decode(Sections from, std::size_t elements, float* out) {
  decode_blocks<Fp8E4m3>(from, elements, Store{out});
}
void accumulate(Sections from, std::size_t elements, float coefficient, float* sum) {
  decode_blocks<Fp8E4m3>(from, elements, Accumulate{coefficient, sum});
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

/// The format has no infinities; all ones is NaN, which is never written. The largest code of a stretch is found first:
/// that loop becomes vector instructions.
std::string find_nan_code(std::byte const* codes, std::size_t elements) {
  constexpr std::size_t kAtOnce = 4096;
  constexpr std::uint8_t kNan = 0x7F;
  auto const* const bytes = reinterpret_cast<std::uint8_t const*>(codes);
  for (std::size_t begin = 0; begin < elements; begin += kAtOnce) {
    std::size_t const end = std::min(elements, begin + kAtOnce);
    std::uint8_t largest = 0;
    for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, static_cast<std::uint8_t>(bytes[i] & kNan));
    if (largest != kNan) continue;
    auto const* const found = std::find_if(bytes + begin, bytes + end, [](auto code) { return (code & kNan) == kNan; });
    return "element " + std::to_string(found - bytes) + " is NaN, which no encoder writes";
  }
  return {};
}

}  // namespace

Entry fp8_e4m3_entry() {
  return {.name = "fp8_e4m3_b256",
          .short_name = "fp8_e4m3",
          .id = 6,
          .block_elements = 256,
          .scale_bytes = ShortScale::kBytes,
          .code_bits = 8,
          .summary = "8-bit floats",
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
          .find_fault =
              [](Sections from, std::size_t elements) {
                auto fault = find_bad_scale<ShortScale>(from.scales, 256, elements);
                return fault.empty() ? find_nan_code(from.codes, elements) : fault;
              }};
}

}  // namespace holdfast::codecs
#endif
