#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "codecs/bfloat16.hpp"
#include "codecs/block_scale.hpp"
#include "codecs/registry.hpp"

/// Four classes of values per block, cut at the mean and one standard deviation on each side of it; a class travels as
/// its mean. With Gaussian values the cuts are close to the best ones. The sums run in index order, so there is one
/// form for all instruction sets.
namespace holdfast::codecs {
namespace {

constexpr std::size_t kBlock = 1024;
constexpr std::size_t kClasses = 4;
constexpr std::size_t kScaleBytes = 2 * kClasses;
constexpr std::size_t kCodesPerByte = 4;

std::size_t code_bytes(std::size_t elements) {
  return (elements + kCodesPerByte - 1) / kCodesPerByte;
}

void encode_block(float const* values, std::size_t elements, std::byte* table, std::byte* codes) {
  double sum = 0;
  for (std::size_t i = 0; i < elements; ++i) sum += static_cast<double>(values[i]);
  auto const count = static_cast<double>(elements);
  double const mean = sum / count;
  double squares = 0;
  for (std::size_t i = 0; i < elements; ++i) {
    double const deviation = static_cast<double>(values[i]) - mean;
    squares += deviation * deviation;
  }
  double const deviation = std::sqrt(squares / count);
  auto const low = static_cast<float>(mean - deviation);
  auto const middle = static_cast<float>(mean);
  auto const high = static_cast<float>(mean + deviation);

  std::array<double, kClasses> sums{};
  std::array<std::size_t, kClasses> counts{};
  for (std::size_t i = 0; i < elements; ++i) {
    float const value = values[i];
    auto const code = static_cast<std::size_t>(value > low) + static_cast<std::size_t>(value > middle) +
                      static_cast<std::size_t>(value > high);
    codes[i / kCodesPerByte] |= static_cast<std::byte>(code << i % kCodesPerByte * 2);
    sums[code] += static_cast<double>(value);
    ++counts[code];
  }
  for (std::size_t code = 0; code < kClasses; ++code) {
    auto const of_class = counts[code] == 0 ? 0.0 : sums[code] / static_cast<double>(counts[code]);
    store_bfloat16(to_bfloat16(static_cast<float>(of_class)), table + 2 * code);
  }
}

bool encode(float const* values, std::size_t elements, std::byte* scales, std::byte* codes) {
  bool flagged = false;
  for (std::size_t begin = 0; begin < elements; begin += kBlock) {
    std::size_t const count = std::min(kBlock, elements - begin);
    std::uint32_t largest = 0;
    for (std::size_t i = begin; i < begin + count; ++i)
      largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7FFFFFFFU);
    std::memset(scales, 0, kScaleBytes);
    std::memset(codes, 0, code_bytes(count));
    if (largest >= kFlagMagnitude) {
      flagged = true;
      store_bfloat16(kBFloat16Flag, scales);
    } else if (largest >= kZeroMagnitude) {
      encode_block(values + begin, count, scales, codes);
    }
    scales += kScaleBytes;
    codes += code_bytes(count);
  }
  return flagged;
}

template <class Sink>
void decode_to(Sections from, std::size_t elements, Sink const& sink) {
  for (std::size_t begin = 0; begin < elements; begin += kBlock) {
    std::size_t const count = std::min(kBlock, elements - begin);
    std::array<float, kClasses> table;
    for (std::size_t code = 0; code < kClasses; ++code)
      table[code] = from_bfloat16(load_bfloat16(from.scales + 2 * code));
    for (std::size_t i = 0; i < count; ++i) {
      auto const code = std::to_integer<unsigned>(from.codes[i / kCodesPerByte]) >> i % kCodesPerByte * 2 & 3U;
      sink(begin + i, table[code]);
    }
    from.scales += kScaleBytes;
    from.codes += code_bytes(count);
  }
}

void decode(Sections from, std::size_t elements, float* out) {
  decode_to(from, elements, [=](std::size_t i, float value) { out[i] = value; });
}

void accumulate(Sections from, std::size_t elements, float coefficient, float* sum) {
  decode_to(from, elements, [=](std::size_t i, float value) { sum[i] += coefficient * value; });
}

std::string find_bad_table(Sections from, std::size_t elements) {
  std::size_t const blocks = (elements + kBlock - 1) / kBlock;
  for (std::size_t entry = 0; entry < blocks * kClasses; ++entry) {
    auto const code = load_bfloat16(from.scales + 2 * entry);
    if (is_legal_bfloat16(code)) continue;
    auto const fault = code == kBFloat16Flag && entry % kClasses == 0 ? ScaleFault::flagged : ScaleFault::impossible;
    return describe_block(entry / kClasses, kBlock, elements) + describe_fault(fault, code, 4);
  }
  return {};
}

}  // namespace

Entry int2_entry() {
  return {.name = "int2_b1024",
          .short_name = "int2",
          .id = 7,
          .block_elements = kBlock,
          .scale_bytes = kScaleBytes,
          .code_bits = 2,
          .summary = "four values per block; needs error feedback",
          .encode = encode,
          .decode = decode,
          .accumulate = accumulate,
          .find_fault = find_bad_table};
}

}  // namespace holdfast::codecs
