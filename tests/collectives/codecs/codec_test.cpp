#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/runtime/error.hpp>

#include "kernels/highway.hpp"
// After the choice of instruction sets above.
#include <hwy/targets.h>
#if defined(__SSE2__)
#include <pmmintrin.h>
#include <xmmintrin.h>
#endif

namespace holdfast {
namespace {

constexpr std::size_t kSizes[] = {0,  1,   2,   3,   7,   8,    15,   16,   31,   63,  64,
                                  65, 100, 255, 256, 257, 1000, 1023, 1024, 1025, 5000};

std::vector<Codec> every_codec() {
  std::vector<Codec> codecs;
  for (auto const& description : Codec::all()) codecs.push_back(Codec::parse(description.name));
  return codecs;
}

/// Finite values below 2^120: Gaussian at many scales, with zeros of both signs, subnormals and ties among them.
std::vector<float> random_values(std::size_t elements, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> gauss;
  std::vector<float> values(elements);
  for (std::size_t i = 0; i < elements; ++i) {
    auto const kind = random() % 64;
    float const scale = std::ldexp(1.0F, static_cast<int>(i / 700 * 37 % 190) - 120);
    values[i] = gauss(random) * scale;
    if (kind == 0) values[i] = 0.0F;
    if (kind == 1) values[i] = -0.0F;
    if (kind == 2) values[i] = std::numeric_limits<float>::denorm_min() * static_cast<float>(random() % 1000);
    if (kind == 3) values[i] = -1.5F * scale;
    if (kind == 4) values[i] = 2.5F * scale;
  }
  return values;
}

std::vector<std::byte> encoded(Codec const& codec, std::vector<float> const& values) {
  std::vector<std::byte> payload(codec.payload_bytes(values.size()), std::byte{0xA5});
  EXPECT_EQ(codec.encode(values, payload), Codec::Encoded::finite) << codec.text();
  return payload;
}

std::vector<std::uint32_t> bits(std::vector<float> const& values) {
  std::vector<std::uint32_t> result;
  for (float const value : values) result.push_back(std::bit_cast<std::uint32_t>(value));
  return result;
}

std::vector<float> decoded(Codec const& codec, std::vector<std::byte> const& payload, std::size_t elements) {
  std::vector<float> out(elements, 12345.0F);
  auto const outcome = codec.decode(payload, out);
  EXPECT_TRUE(outcome) << codec.text() << ": " << outcome.error().detail;
  return out;
}

std::string refusal(Codec const& codec, std::vector<std::byte> const& payload, std::size_t elements) {
  auto const outcome = codec.check(payload, elements);
  if (outcome) return "accepted";
  EXPECT_EQ(outcome.error().code, Errc::corrupt_message);
  return outcome.error().detail;
}

class EachCodec : public testing::TestWithParam<Codec> {};
INSTANTIATE_TEST_SUITE_P(Codecs, EachCodec, testing::ValuesIn(every_codec()),
                         [](auto const& param) { return param.param.text(); });

void use_instruction_set(std::int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST_P(EachCodec, gives_the_bits_of_the_scalar_form_on_every_instruction_set) {
  auto const codec = GetParam();
  auto const targets = hwy::SupportedAndGeneratedTargets();
  std::int64_t const scalar = *std::max_element(targets.begin(), targets.end());
  ASSERT_TRUE(scalar == HWY_SCALAR || scalar == HWY_EMU128);
  for (std::size_t const elements : kSizes) {
    auto const values = random_values(elements, elements + 1);
    use_instruction_set(scalar);
    auto const payload = encoded(codec, values);
    auto const out = decoded(codec, payload, elements);
    auto sum = random_values(elements, elements + 2);
    ASSERT_TRUE(codec.accumulate(payload, 0.37F, sum));
    for (auto const target : targets) {
      SCOPED_TRACE(std::string(hwy::TargetName(target)) + ", " + std::to_string(elements) + " elements");
      use_instruction_set(target);
      EXPECT_EQ(encoded(codec, values), payload);
      EXPECT_EQ(bits(decoded(codec, payload, elements)), bits(out));
      auto again = random_values(elements, elements + 2);
      ASSERT_TRUE(codec.accumulate(payload, 0.37F, again));
      EXPECT_EQ(bits(again), bits(sum));
    }
  }
  use_instruction_set(0);
}

TEST_P(EachCodec, accumulates_product_and_sum_rounded_one_by_one) {
  auto const codec = GetParam();
  for (std::size_t const elements : kSizes) {
    auto const payload = encoded(codec, random_values(elements, elements));
    auto const out = decoded(codec, payload, elements);
    auto sum = random_values(elements, elements + 7);
    auto expected = sum;
    for (std::size_t i = 0; i < elements; ++i) {
      float const volatile product = 0.3F * out[i];
      expected[i] = expected[i] + product;
    }
    ASSERT_TRUE(codec.accumulate(payload, 0.3F, sum));
    EXPECT_EQ(bits(sum), bits(expected)) << elements << " elements";
  }
}

TEST_P(EachCodec, encodes_what_it_decoded_to_the_same_bytes) {
  auto const codec = GetParam();
  if (codec.needs_error_feedback()) GTEST_SKIP() << "a new code book is made for each block";
  for (std::size_t const elements : kSizes) {
    auto const payload = encoded(codec, random_values(elements, elements));
    EXPECT_EQ(encoded(codec, decoded(codec, payload, elements)), payload) << elements << " elements";
  }
}

TEST_P(EachCodec, decodes_no_negative_zero) {
  auto const codec = GetParam();
  if (codec.is_identity()) GTEST_SKIP() << "keeps all bits";
  auto const out = decoded(codec, encoded(codec, random_values(5000, 3)), 5000);
  EXPECT_TRUE(std::none_of(out.begin(), out.end(), [](float x) { return x == 0 && std::signbit(x); }));
}

// A shard may be cut out of a whole vector's code, or encoded by itself.
TEST_P(EachCodec, codes_of_pieces_are_pieces_of_the_code) {
  auto const codec = GetParam();
  auto const values = random_values(3 * Codec::kCutElements + 77, 11);
  auto const whole = decoded(codec, encoded(codec, values), values.size());
  for (std::size_t begin = 0; begin < values.size(); begin += Codec::kCutElements) {
    std::size_t const end = std::min(values.size(), begin + Codec::kCutElements);
    std::vector<float> const piece(values.begin() + static_cast<std::ptrdiff_t>(begin),
                                   values.begin() + static_cast<std::ptrdiff_t>(end));
    std::vector<float> const part(whole.begin() + static_cast<std::ptrdiff_t>(begin),
                                  whole.begin() + static_cast<std::ptrdiff_t>(end));
    EXPECT_EQ(bits(decoded(codec, encoded(codec, piece), piece.size())), bits(part));
  }
}

TEST_P(EachCodec, flags_what_is_not_finite_or_could_overflow_a_sum) {
  auto const codec = GetParam();
  float const nan = std::numeric_limits<float>::quiet_NaN();
  float const infinity = std::numeric_limits<float>::infinity();
  for (float const bad : {nan, -nan, infinity, -infinity, Codec::kLimit * 2, -3e38F}) {
    for (std::size_t const at : {std::size_t{0}, std::size_t{1100}, std::size_t{2499}}) {
      auto values = random_values(2500, 5);
      values[at] = bad;
      std::vector<std::byte> payload(codec.payload_bytes(values.size()));
      EXPECT_EQ(codec.encode(values, payload), Codec::Encoded::flagged);
      EXPECT_THAT(refusal(codec, payload, values.size()), testing::HasSubstr("flagged by its sender"));
    }
  }
}

TEST_P(EachCodec, refuses_a_payload_of_another_length) {
  auto const codec = GetParam();
  auto payload = encoded(codec, random_values(70, 5));
  payload.push_back(std::byte{0});
  EXPECT_THAT(refusal(codec, payload, 70), testing::HasSubstr("bytes where 70 elements take"));
  payload.resize(payload.size() - 2);
  EXPECT_THAT(refusal(codec, payload, 70), testing::HasSubstr("bytes where 70 elements take"));
  EXPECT_THROW((void)codec.encode(random_values(70, 5), payload), Error);
}

TEST_P(EachCodec, survives_any_bytes) {
  auto const codec = GetParam();
  std::mt19937_64 random(17);
  for (int round = 0; round < 200; ++round) {
    std::size_t const elements = random() % 3000;
    std::vector<std::byte> payload(codec.payload_bytes(elements));
    for (auto& byte : payload) byte = static_cast<std::byte>(random());
    std::vector<float> out(elements);
    bool const is_accepted = codec.decode(payload, out).has_value();
    EXPECT_TRUE(!is_accepted || std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
  }
}

TEST_P(EachCodec, works_on_payloads_at_any_address) {
  auto const codec = GetParam();
  auto const values = random_values(1300, 23);
  auto const payload = encoded(codec, values);
  for (std::size_t shift = 1; shift < 8; ++shift) {
    std::vector<std::byte> memory(payload.size() + 2 * shift, std::byte{0x5A});
    std::span<std::byte> const inside(memory.data() + shift, payload.size());
    ASSERT_EQ(codec.encode(values, inside), Codec::Encoded::finite);
    EXPECT_TRUE(std::equal(payload.begin(), payload.end(), inside.begin()));
    EXPECT_EQ(memory[shift - 1], std::byte{0x5A});
    EXPECT_EQ(memory[shift + payload.size()], std::byte{0x5A});
    std::vector<float> out(values.size());
    ASSERT_TRUE(codec.decode(inside, out));
    EXPECT_EQ(bits(out), bits(decoded(codec, payload, values.size())));
  }
}

#if defined(__SSE2__)
TEST_P(EachCodec, does_not_depend_on_the_modes_that_flush_subnormals) {
  auto const codec = GetParam();
  auto const values = random_values(5000, 29);
  auto const payload = encoded(codec, values);
  auto const out = decoded(codec, payload, values.size());
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
  auto const flushed_payload = encoded(codec, values);
  auto const flushed_out = decoded(codec, payload, values.size());
  EXPECT_EQ(_MM_GET_FLUSH_ZERO_MODE(), unsigned{_MM_FLUSH_ZERO_ON}) << "the caller's mode must come back";
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_OFF);
  _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_OFF);
  EXPECT_EQ(flushed_payload, payload);
  EXPECT_EQ(bits(flushed_out), bits(out));
}
#endif

TEST(Codec, names_are_known_in_both_forms_and_ids_are_those_of_the_headers) {
  std::vector<std::string> const names{"identity", "bf16",      "e3m0_b256",     "e2m1_b64",
                                       "int4_b64", "int8_b256", "fp8_e4m3_b256", "int2_b1024"};
  for (std::size_t id = 0; id < names.size(); ++id) {
    auto const codec = Codec::with_id(static_cast<std::uint8_t>(id));
    ASSERT_TRUE(codec);
    EXPECT_EQ(codec->text(), names[id]);
    EXPECT_EQ(Codec::parse(names[id].substr(0, names[id].find("_b"))), *codec);
  }
  EXPECT_FALSE(Codec::with_id(8));
}

TEST(Codec, unknown_name_is_answered_with_the_valid_ones) {
  try {
    (void)Codec::parse("e3m1");
    FAIL();
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::bad_argument);
    EXPECT_STREQ(error.what(),
                 "unknown codec 'e3m1'; did you mean 'e3m0'? Codecs: identity, bf16, e3m0, e2m1, int4, int8, "
                 "fp8_e4m3, int2");
  }
  EXPECT_THROW((void)Codec::parse("int4(block=32)"), Error);
}

TEST(Codec, bits_per_element_count_the_scales) {
  EXPECT_EQ(Codec::parse("e3m0").bits_per_element(), 4.03125);
  EXPECT_EQ(Codec::parse("e2m1").bits_per_element(), 4.25);
  EXPECT_EQ(Codec::parse("int4").bits_per_element(), 4.25);
  EXPECT_EQ(Codec::parse("int8").bits_per_element(), 8.125);
  EXPECT_EQ(Codec::parse("fp8_e4m3").bits_per_element(), 8.0625);
  EXPECT_EQ(Codec::parse("int2").bits_per_element(), 2.0625);
  EXPECT_EQ(Codec::parse("int4").payload_bytes(std::uint64_t{1} << 40), (std::uint64_t{1} << 40) / 64 * 34);
}

TEST(Codec, impossible_block_is_named) {
  auto const codec = Codec::parse("e3m0");
  auto payload = encoded(codec, random_values(600, 1));
  payload[1] = std::byte{0xF8};
  EXPECT_EQ(refusal(codec, payload, 600),
            "codec e3m0_b256: block 1 (elements 256 to 511) has the scale 0xf8, which no encoder writes");
}

// Relative error of Gaussian values as the specification tabulates it, in per cent of the energy.
TEST(Codec, error_on_gaussian_values_is_the_published_one) {
  std::mt19937_64 random(31);
  std::normal_distribution<float> gauss;
  std::vector<float> values(1 << 18);
  for (auto& value : values) value = gauss(random);
  struct Expected {
    char const* codec;
    double percent;
    double gain;
  };
  for (auto const& [name, percent, gain] :
       {Expected{"e3m0", 3.74, .960}, Expected{"e2m1", 1.12, .994}, Expected{"int4", 1.15, 1.0},
        Expected{"int8", .0048, 1.0}, Expected{"fp8_e4m3", .069, 1.0}, Expected{"int2", 11.7, .883}}) {
    auto const codec = Codec::parse(name);
    auto const out = decoded(codec, encoded(codec, values), values.size());
    double energy = 0;
    double error = 0;
    double product = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      double const x = values[i];
      double const y = out[i];
      energy += x * x;
      error += (x - y) * (x - y);
      product += x * y;
    }
    EXPECT_NEAR(100 * error / energy, percent, 0.03 * percent) << name;
    EXPECT_NEAR(product / energy, gain, 0.002) << name;
  }
}

}  // namespace
}  // namespace holdfast
