#include "kernels/kernels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "kernels/highway.hpp"
// After the choice of instruction sets above.
#include <hwy/targets.h>

namespace holdfast::kernels {
namespace {

constexpr DType kFloats[] = {DType::float32, DType::float64, DType::float16, DType::bfloat16};
constexpr DType kAll[] = {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int32, DType::int64};
constexpr std::size_t kSizes[] = {0, 1, 2, 7, 8, 31, 100, 1023, 4096, 4097, 9001};

using Bytes = std::vector<std::byte>;

/// Rows of random elements, each beginning one byte off any alignment.
class Matrix {
 public:
  Matrix(int rows, std::size_t elements, DType dtype, std::uint64_t seed, bool special = true)
      : elements_(elements), dtype_(dtype) {
    std::mt19937_64 random(seed);
    for (int row = 0; row < rows; ++row) {
      auto& bytes = storage_.emplace_back(elements * element_bytes(dtype) + 1);
      for (std::size_t i = 0; i < elements; ++i) put(row, i, value(random, special));
      pointers_.push_back(bytes.data() + 1);
    }
  }
  [[nodiscard]] Rows rows() const { return {pointers_, elements_, dtype_}; }
  [[nodiscard]] Rows columns(std::size_t from, std::size_t count, std::vector<std::byte const*>& pointers) const {
    pointers.clear();
    for (auto const* pointer : pointers_) pointers.push_back(pointer + from * element_bytes(dtype_));
    return {pointers, count, dtype_};
  }
  template <class T>
  void set(int row, std::size_t element, T value) {
    std::memcpy(storage_[static_cast<std::size_t>(row)].data() + 1 + element * sizeof(T), &value, sizeof(T));
  }
  template <class T>
  [[nodiscard]] T get(int row, std::size_t element) const {
    T value;
    std::memcpy(&value, pointers_[static_cast<std::size_t>(row)] + element * sizeof(T), sizeof(T));
    return value;
  }

 private:
  /// Bits of a finite element; zeros of both signs, subnormals and ties among them.
  [[nodiscard]] std::uint64_t value(std::mt19937_64& random, bool special) const {
    std::uint64_t const bits = random();
    std::uint64_t const kind = special ? bits % 16 : 15;
    double const number = std::ldexp(static_cast<double>(static_cast<std::int64_t>(bits)), -63);
    switch (dtype_) {
      case DType::float32:
        if (kind == 0) return (bits >> 20) & 0x80000000U;
        if (kind == 1) return (bits >> 20) & 0x800FFFFFU;
        return std::bit_cast<std::uint32_t>(static_cast<float>(kind == 2 ? std::round(number * 4) : number));
      case DType::float64:
        if (kind == 0) return bits & 0x8000000000000000U;
        return std::bit_cast<std::uint64_t>(kind == 2 ? std::round(number * 4) : number);
      case DType::float16: {
        auto const half = (bits >> 20) & 0xBFFFU;  // below the exponent of infinity, but for 0x3C00 + 0x8000
        return kind == 0 ? half & 0x8000U : kind == 1 ? half & 0x83FFU : half;
      }
      case DType::bfloat16:
        return kind == 0 ? (bits >> 20) & 0x8000U : 0x3F00U ^ ((bits >> 20) & 0x80FFU);
      case DType::int32:
        return (bits >> 7) & 0xFFFFFFFFU;
      case DType::int64:
        return bits;
    }
    return 0;
  }
  void put(int row, std::size_t element, std::uint64_t bits) {
    auto const width = element_bytes(dtype_);
    std::memcpy(storage_[static_cast<std::size_t>(row)].data() + 1 + element * width, &bits, width);
  }

  std::size_t elements_;
  DType dtype_;
  std::vector<Bytes> storage_;
  std::vector<std::byte const*> pointers_;
};

/// Output one byte off alignment, too.
struct Output {
  explicit Output(Rows const& rows) : bytes(rows.elements * element_bytes(rows.dtype) + 1, std::byte{0xEE}) {}
  [[nodiscard]] std::byte* data() { return bytes.data() + 1; }
  template <class T>
  [[nodiscard]] std::vector<T> as() const {
    std::vector<T> values((bytes.size() - 1) / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data() + 1, values.size() * sizeof(T));
    return values;
  }
  Bytes bytes;
};

double half_value(std::uint16_t bits) {
  double const sign = (bits & 0x8000U) != 0 ? -1 : 1;
  int const exponent = (bits >> 10) & 31;
  int const mantissa = bits & 0x3FF;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

/// Round to nearest even by arithmetic.
std::uint16_t half_bits(double value) {
  std::uint16_t const sign = std::signbit(value) ? 0x8000 : 0;
  double const magnitude = std::abs(value);
  if (magnitude == 0) return sign;
  if (magnitude >= 65520) return sign | 0x7C00;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  int const quantum = std::max(exponent - 11, -24);
  double const units = std::nearbyint(std::ldexp(magnitude, -quantum));
  if (quantum == -24 && units < 1024) return sign | static_cast<std::uint16_t>(units);
  if (units == 2048) return sign | static_cast<std::uint16_t>((quantum + 26) << 10);
  return sign | static_cast<std::uint16_t>(((quantum + 25) << 10) + static_cast<int>(units) - 1024);
}

std::uint16_t bfloat_bits(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

/// Everything that a kernel computes from one input, as bytes.
Bytes everything(DType dtype, int rows, std::size_t elements) {
  Matrix const matrix(rows, elements, dtype, 77 + elements + static_cast<std::uint64_t>(rows));
  auto const input = matrix.rows();
  Bytes all;
  auto const append = [&](void const* data, std::size_t bytes) {
    auto const* from = static_cast<std::byte const*>(data);
    all.insert(all.end(), from, from + bytes);
  };
  auto const append_output = [&](Output const& output) { append(output.bytes.data(), output.bytes.size()); };
  for (auto const reduction :
       {Reduction::sum, Reduction::average, Reduction::min, Reduction::max, Reduction::product}) {
    Output output(input);
    reduce(input, reduction, output.data());
    append_output(output);
  }
  RowMask mask(rows);
  screen(input, mask);
  append(mask.words().data(), mask.words().size_bytes());
  if (!is_floating_point(dtype)) return all;

  for (auto const kind : {CoordinateKernel::Kind::median, CoordinateKernel::Kind::median_lower,
                          CoordinateKernel::Kind::trimmed_mean, CoordinateKernel::Kind::closest_to_median,
                          CoordinateKernel::Kind::closest_to_trimmed_mean, CoordinateKernel::Kind::majority}) {
    Output output(input);
    coordinate(input, {kind, (rows - 1) / 3, rows - (rows - 1) / 3}, output.data());
    append_output(output);
  }
  std::vector<double> coefficients;
  for (int row = 0; row < rows; ++row) coefficients.push_back(row % 5 == 3 ? 0 : 1.0 / (row + 2));
  Output output(input);
  combine(input, Combination::of(coefficients, .25), input.data[0], output.data());
  append_output(output);
  for (std::byte const* center : {static_cast<std::byte const*>(nullptr), input.data[0]}) {
    std::vector<double> packed(packed_entries(rows), 0);
    accumulate_gram(input, center, packed);
    append(packed.data(), packed.size() * sizeof(double));
  }
  std::vector<Combination> const mixture{Combination::of(coefficients),
                                         Combination::mean_of(rows, std::vector{0, rows - 1})};
  if (dtype == DType::float32) {
    struct alignas(64) Line {
      std::byte bytes[64];
    };
    std::vector<Line> copy(elements * sizeof(float) / sizeof(Line) + 1);
    std::vector<std::byte*> copies;
    for (int row = 1; row <= rows; ++row) copies.push_back(row == rows ? copy.front().bytes : nullptr);
    std::vector<double> packed(packed_entries(rows), 0);
    accumulate_gram(input, nullptr, packed, copies);
    append(packed.data(), packed.size() * sizeof(double));
    append(copy.data(), elements * sizeof(float));
  }
  Output mixed[] = {Output(input), Output(input)};
  std::byte* const to[] = {mixed[0].data(), mixed[1].data()};
  mix(input, mixture, to);
  for (auto const& each : mixed) append_output(each);
  return all;
}

class InstructionSet : public testing::TestWithParam<std::int64_t> {
 protected:
  static void use(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override { use(0); }
};

TEST_P(InstructionSet, gives_the_bits_of_the_scalar_form) {
  auto const targets = hwy::SupportedAndGeneratedTargets();
  ASSERT_NE(std::count_if(targets.begin(), targets.end(),
                          [](std::int64_t target) { return target == HWY_EMU128 || target == HWY_SCALAR; }),
            0);
  std::int64_t const scalar = *std::max_element(targets.begin(), targets.end());
  for (auto const dtype : kAll)
    for (int const rows : {1, 2, 3, 4, 5, 8, 9, 16, 33})
      for (auto const elements : {std::size_t{1}, std::size_t{37}, std::size_t{4096 + 300}}) {
        use(scalar);
        auto const expected = everything(dtype, rows, elements);
        use(GetParam());
        EXPECT_EQ(everything(dtype, rows, elements), expected)
            << name(dtype) << ", " << rows << " rows, " << elements << " elements";
      }
}

INSTANTIATE_TEST_SUITE_P(Kernels, InstructionSet, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](auto const& instance) { return std::string(hwy::TargetName(instance.param)); });

TEST(Average, sums_in_rank_order_and_divides_once) {
  for (int rows = 1; rows <= 19; ++rows)
    for (auto const elements : kSizes) {
      Matrix const matrix(rows, elements, DType::float32, 5);
      Output output(matrix.rows());
      EXPECT_TRUE(average(matrix.rows(), static_cast<std::uint64_t>(rows), output.data()));
      auto const result = output.as<float>();
      for (std::size_t i = 0; i < elements; ++i) {
        float sum = matrix.get<float>(0, i);
        for (int row = 1; row < rows; ++row) sum += matrix.get<float>(row, i);
        ASSERT_EQ(std::bit_cast<std::uint32_t>(result[i]),
                  std::bit_cast<std::uint32_t>(sum / static_cast<float>(rows)));
      }
    }
}

TEST(Average, rounds_16_bit_rows_once) {
  for (int const rows : {2, 3, 11}) {
    Matrix const half(rows, 5000, DType::float16, 6);
    Matrix const bfloat(rows, 5000, DType::bfloat16, 6);
    Output half_output(half.rows());
    Output bfloat_output(bfloat.rows());
    average(half.rows(), static_cast<std::uint64_t>(rows), half_output.data());
    average(bfloat.rows(), static_cast<std::uint64_t>(rows), bfloat_output.data());
    auto const half_result = half_output.as<std::uint16_t>();
    auto const bfloat_result = bfloat_output.as<std::uint16_t>();
    for (std::size_t i = 0; i < 5000; ++i) {
      float half_sum = 0;
      float bfloat_sum = 0;
      for (int row = 0; row < rows; ++row) {
        auto const h = static_cast<float>(half_value(half.get<std::uint16_t>(row, i)));
        auto const b = std::bit_cast<float>(static_cast<std::uint32_t>(bfloat.get<std::uint16_t>(row, i)) << 16);
        half_sum = row == 0 ? h : half_sum + h;
        bfloat_sum = row == 0 ? b : bfloat_sum + b;
      }
      ASSERT_EQ(half_result[i], half_bits(half_sum / static_cast<float>(rows)));
      ASSERT_EQ(bfloat_result[i], bfloat_bits(bfloat_sum / static_cast<float>(rows)));
    }
  }
}

TEST(Average, keeps_every_16_bit_value) {
  for (auto const dtype : {DType::float16, DType::bfloat16}) {
    std::vector<std::uint16_t> values;
    unsigned const infinity = dtype == DType::float16 ? 0x7C00U : 0x7F80U;
    for (unsigned bits = 0; bits < 0x10000U; ++bits)
      if ((bits & 0x7FFFU) <= infinity) values.push_back(static_cast<std::uint16_t>(bits));
    auto const* const data = reinterpret_cast<std::byte const*>(values.data());
    std::vector<std::uint16_t> result(values.size());
    average({{&data, 1}, values.size(), dtype}, 1, reinterpret_cast<std::byte*>(result.data()));
    EXPECT_EQ(result, values) << name(dtype);
  }
}

TEST(Average, reports_a_result_that_is_not_finite) {
  for (auto const dtype : kFloats)
    for (int const rows : {2, 3, 12})
      for (std::size_t const place : {0U, 5U, 63U, 64U, 2999U}) {
        Matrix matrix(rows, 3000, dtype, 9);
        Output output(matrix.rows());
        EXPECT_TRUE(average(matrix.rows(), 2, output.data()));
        switch (dtype) {
          case DType::float64:
            matrix.set(rows - 1, place, std::numeric_limits<double>::quiet_NaN());
            break;
          case DType::float16:
            matrix.set(rows - 1, place, std::uint16_t{0xFC00});
            break;
          case DType::bfloat16:
            matrix.set(rows - 1, place, std::uint16_t{0x7FC0});
            break;
          default:
            matrix.set(rows - 1, place, -std::numeric_limits<float>::infinity());
            break;
        }
        EXPECT_FALSE(average(matrix.rows(), 2, output.data())) << name(dtype) << " at " << place;
      }
}

TEST(Average, of_finite_rows_that_overflow_is_reported_but_the_rows_pass_screening) {
  float const large[] = {3e38F};
  std::byte const* const rows[] = {reinterpret_cast<std::byte const*>(large),
                                   reinterpret_cast<std::byte const*>(large)};
  float out = 0;
  EXPECT_FALSE(average({rows, 1, DType::float32}, 2, reinterpret_cast<std::byte*>(&out)));
  RowMask mask(2);
  screen({rows, 1, DType::float32}, mask);
  EXPECT_FALSE(mask.any());
}

TEST(Average, may_write_over_one_of_its_rows) {
  for (int const rows : {2, 12}) {
    Matrix matrix(rows, 5000, DType::float32, 4);
    Output expected(matrix.rows());
    average(matrix.rows(), 3, expected.data());
    average(matrix.rows(), 3, const_cast<std::byte*>(matrix.rows().data[1]));
    auto const result = expected.as<float>();
    for (std::size_t i = 0; i < 5000; ++i) ASSERT_EQ(matrix.get<float>(1, i), result[i]);
  }
}

TEST(Screen, finds_a_bad_element_wherever_it_is) {
  for (auto const dtype : kFloats)
    for (auto const elements : kSizes)
      for (std::size_t place = 0; place < elements; place += 1 + elements / 9) {
        Matrix matrix(3, elements, dtype, 3);
        RowMask mask(3);
        screen(matrix.rows(), mask);
        EXPECT_FALSE(mask.any());
        switch (dtype) {
          case DType::float64:
            matrix.set(1, place, -std::numeric_limits<double>::infinity());
            break;
          case DType::float16:
            matrix.set(1, place, std::uint16_t{0x7C01});
            break;
          case DType::bfloat16:
            matrix.set(1, place, std::uint16_t{0xFF80});
            break;
          default:
            matrix.set(1, place, std::numeric_limits<float>::quiet_NaN());
            break;
        }
        screen(matrix.rows(), mask);
        EXPECT_EQ(mask.indices(), (std::vector<int>{1})) << name(dtype) << " at " << place << " of " << elements;
      }
}

TEST(Screen, passes_the_largest_finite_values_and_any_integer) {
  float const largest[] = {std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()};
  EXPECT_TRUE(all_finite(reinterpret_cast<std::byte const*>(largest), 2, DType::float32));
  std::int32_t const ones[] = {-1, 0x7F800000};
  EXPECT_TRUE(all_finite(reinterpret_cast<std::byte const*>(ones), 2, DType::int32));
}

TEST(Combine, adds_rounded_products_in_rank_order_after_the_centre) {
  for (int const rows : {1, 2, 4, 5, 9}) {
    Matrix const matrix(rows, 3000, DType::float32, 8);
    Matrix const center(1, 3000, DType::float32, 9);
    std::vector<double> coefficients;
    for (int row = 0; row < rows; ++row) coefficients.push_back(1.0 / (row + 3));
    Output output(matrix.rows());
    combine(matrix.rows(), Combination::of(coefficients, .7), center.rows().data[0], output.data());
    auto const result = output.as<float>();
    for (std::size_t i = 0; i < 3000; ++i) {
      float sum = .7F * center.get<float>(0, i);
      for (int row = 0; row < rows; ++row)
        sum += static_cast<float>(coefficients[static_cast<std::size_t>(row)]) * matrix.get<float>(row, i);
      ASSERT_EQ(std::bit_cast<std::uint32_t>(result[i]), std::bit_cast<std::uint32_t>(sum));
    }
  }
}

TEST(Combine, sums_rows_of_equal_weight_and_divides_once) {
  Matrix const matrix(6, 100, DType::float32, 8);
  auto const combination = Combination::of({0, 1.0 / 3, 0, 1.0 / 3, 1.0 / 3, 0});
  EXPECT_TRUE(combination.equal_weights);
  Output output(matrix.rows());
  combine(matrix.rows(), combination, nullptr, output.data());
  for (std::size_t i = 0; i < 100; ++i)
    EXPECT_EQ(output.as<float>()[i],
              (matrix.get<float>(1, i) + matrix.get<float>(3, i) + matrix.get<float>(4, i)) / 3.0F);
}

TEST(Combine, of_nothing_is_zero) {
  Matrix const matrix(2, 10, DType::float32, 8);
  Output output(matrix.rows());
  combine(matrix.rows(), Combination::of({0, 0}), nullptr, output.data());
  for (float const value : output.as<float>()) EXPECT_EQ(value, 0);
}

TEST(Combination, of_unequal_or_centred_coefficients_is_not_a_plain_mean) {
  EXPECT_FALSE(Combination::of({.5, .25, .25}).equal_weights);
  EXPECT_FALSE(Combination::of({.25, .25}, .5).equal_weights);
  EXPECT_FALSE(Combination::of({.5, 0}).equal_weights);
  EXPECT_TRUE(Combination::of({0, 1}).equal_weights);
}

/// The order that the header promises, spelled out.
double lane_sum(std::vector<double> const& products) {
  double total = 0;
  for (std::size_t block = 0; block < products.size(); block += kBlockElements) {
    double lanes[8] = {};
    for (std::size_t i = block; i < std::min(block + kBlockElements, products.size()); ++i) lanes[i % 8] += products[i];
    total += ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  }
  return total;
}

TEST(Gram, sums_products_in_the_promised_order) {
  for (int rows = 1; rows <= 17; ++rows)
    for (bool const centred : {false, true}) {
      Matrix const matrix(rows, 9001, DType::float32, 21);
      Matrix const center(1, 9001, DType::float32, 22);
      std::vector<double> packed(packed_entries(rows), 0);
      accumulate_gram(matrix.rows(), centred ? center.rows().data[0] : nullptr, packed);
      std::size_t next = 0;
      for (int i = 0; i < rows; ++i)
        for (int j = i; j < rows; ++j) {
          std::vector<double> products;
          for (std::size_t k = 0; k < 9001; ++k) {
            double const v = centred ? static_cast<double>(center.get<float>(0, k)) : 0;
            products.push_back((static_cast<double>(matrix.get<float>(i, k)) - v) *
                               (static_cast<double>(matrix.get<float>(j, k)) - v));
          }
          ASSERT_EQ(packed[next++], lane_sum(products)) << i << ", " << j << " of " << rows;
        }
    }
}

TEST(Mix, gives_what_combine_gives_for_each_combination) {
  for (auto const dtype : kFloats)
    for (int const rows : {1, 3, 16, 21})
      for (auto const elements : kSizes) {
        Matrix const matrix(rows, elements, dtype, 51 + elements);
        auto const input = matrix.rows();
        std::vector<Combination> mixture{Combination::of(std::vector<double>(static_cast<std::size_t>(rows), 0))};
        for (int row = 0; row < rows; ++row) {
          std::vector<int> chosen;
          for (int other = 0; other < rows; ++other)
            if (other == row || (other * 7 + row) % 3 != 0) chosen.push_back(other);
          mixture.push_back(Combination::mean_of(rows, chosen));
          std::vector<double> weights;
          for (int other = 0; other < rows; ++other) weights.push_back(other % 4 == 2 ? 0 : 1.0 / (row + other + 1));
          mixture.push_back(Combination::of(weights));
        }
        std::vector<Output> mixed(mixture.size(), Output(input));
        std::vector<std::byte*> to;
        for (auto& output : mixed) to.push_back(output.data());
        mix(input, mixture, to);
        for (std::size_t k = 0; k < mixture.size(); ++k) {
          Output expected(input);
          combine(input, mixture[k], nullptr, expected.data());
          ASSERT_EQ(mixed[k].bytes, expected.bytes)
              << name(dtype) << ", " << rows << " rows, " << elements << ", " << k;
        }
      }
}

TEST(Gram, copies_the_rows_that_it_reads) {
  constexpr std::size_t kElements = kBlockElements + 4321;
  Matrix const matrix(5, kElements, DType::float32, 61);
  std::vector<double> plain(packed_entries(5), 0);
  accumulate_gram(matrix.rows(), nullptr, plain);
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<std::vector<Line>> memory(5, std::vector<Line>(kElements * sizeof(float) / sizeof(Line) + 1));
  std::vector<std::byte*> copies;
  for (auto& row : memory) copies.push_back(row.front().bytes);
  copies[2] = nullptr;
  std::vector<double> copied(packed_entries(5), 0);
  accumulate_gram(matrix.rows(), nullptr, copied, copies);
  EXPECT_EQ(copied, plain);
  for (std::size_t const row : {0U, 1U, 3U, 4U})
    EXPECT_EQ(std::memcmp(copies[row], matrix.rows().data[row], kElements * sizeof(float)), 0) << row;
}

TEST(Gram, does_not_depend_on_how_whole_blocks_are_cut) {
  for (auto const dtype : kFloats) {
    Matrix const matrix(6, 5 * kBlockElements + 123, dtype, 30);
    std::vector<double> whole(packed_entries(6), 0);
    accumulate_gram(matrix.rows(), nullptr, whole);
    for (std::size_t const blocks : {1U, 2U, 3U}) {
      std::vector<double> pieces(packed_entries(6), 0);
      std::vector<std::byte const*> pointers;
      std::size_t const step = blocks * kBlockElements;
      for (std::size_t from = 0; from < matrix.rows().elements; from += step)
        accumulate_gram(matrix.columns(from, std::min(step, matrix.rows().elements - from), pointers), nullptr, pieces);
      EXPECT_EQ(pieces, whole) << name(dtype);
    }
  }
}

TEST(Gram, keeps_the_distances_of_rows_that_share_a_large_common_vector) {
  constexpr std::size_t kElements = 100'000;
  Matrix const noise(4, kElements, DType::float32, 40, false);
  Matrix const common(1, kElements, DType::float32, 41, false);
  Matrix rows(4, kElements, DType::float32, 42, false);
  for (int row = 0; row < 4; ++row)
    for (std::size_t i = 0; i < kElements; ++i)
      rows.set(row, i, common.get<float>(0, i) + 1e-3F * noise.get<float>(row, i));
  std::vector<double> packed(packed_entries(4), 0);
  accumulate_gram(rows.rows(), nullptr, packed);
  double const by_gram = packed[0] + packed[4] - 2 * packed[1];
  double direct = 0;
  for (std::size_t i = 0; i < kElements; ++i) {
    double const difference = static_cast<double>(rows.get<float>(0, i)) - static_cast<double>(rows.get<float>(1, i));
    direct += difference * difference;
  }
  EXPECT_NEAR(by_gram / direct, 1, 1e-7);
}

template <class T>
std::vector<T> sorted_column(Matrix const& matrix, int rows, std::size_t element) {
  std::vector<T> column;
  for (int row = 0; row < rows; ++row) column.push_back(matrix.get<T>(row, element));
  std::sort(column.begin(), column.end(),
            [](T a, T b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); });
  return column;
}

template <class T>
void check_coordinate(DType dtype, int rows, std::size_t elements) {
  Matrix const matrix(rows, elements, dtype, 50 + static_cast<std::uint64_t>(rows));
  for (int trim = 0; 2 * trim < rows; trim += 1 + rows / 5) {
    Output median(matrix.rows());
    Output lower(matrix.rows());
    Output trimmed(matrix.rows());
    coordinate(matrix.rows(), {CoordinateKernel::Kind::median, 0}, median.data());
    coordinate(matrix.rows(), {CoordinateKernel::Kind::median_lower, 0}, lower.data());
    coordinate(matrix.rows(), {CoordinateKernel::Kind::trimmed_mean, trim}, trimmed.data());
    auto const medians = median.as<T>();
    auto const lowers = lower.as<T>();
    auto const means = trimmed.as<T>();
    for (std::size_t i = 0; i < elements; ++i) {
      auto const column = sorted_column<T>(matrix, rows, i);
      auto const middle = static_cast<std::size_t>(rows) / 2;
      T const expected = rows % 2 == 1 ? column[middle] : (column[middle - 1] + column[middle]) / 2;
      ASSERT_EQ(medians[i], expected);
      ASSERT_EQ(std::signbit(medians[i]), std::signbit(expected));
      ASSERT_EQ(lowers[i], column[static_cast<std::size_t>(rows - 1) / 2]);
      T sum = column[static_cast<std::size_t>(trim)];
      for (int k = trim + 1; k < rows - trim; ++k) sum += column[static_cast<std::size_t>(k)];
      ASSERT_EQ(means[i], rows - 2 * trim == 1 ? sum : sum / static_cast<T>(rows - 2 * trim)) << rows << " rows";
    }
  }
}

TEST(Coordinate, agrees_with_sorting_each_column) {
  for (int rows = 1; rows <= 20; ++rows) {
    check_coordinate<float>(DType::float32, rows, 301);
    check_coordinate<double>(DType::float64, rows, 77);
  }
  for (int const rows : {31, 32, 33, 64, 65, 100, 257}) check_coordinate<float>(DType::float32, rows, 70);
}

/// By the definition: distances in fp64, the lower row first among equals, kept values summed in ascending order.
template <class T>
T mean_of_closest(std::vector<T> const& column, bool to_median, int trim, int keep) {
  auto sorted = column;
  std::sort(sorted.begin(), sorted.end(),
            [](T a, T b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); });
  auto const n = sorted.size();
  std::size_t const first = to_median ? (n - 1) / 2 : static_cast<std::size_t>(trim);
  std::size_t const last = to_median ? n / 2 : n - static_cast<std::size_t>(trim) - 1;
  double center = 0;
  for (std::size_t k = first; k <= last; ++k) center += static_cast<double>(sorted[k]);
  center /= static_cast<double>(last - first + 1);
  std::vector<std::size_t> rows(n);
  for (std::size_t i = 0; i < n; ++i) rows[i] = i;
  std::stable_sort(rows.begin(), rows.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(static_cast<double>(column[a]) - center) < std::abs(static_cast<double>(column[b]) - center);
  });
  std::vector<T> kept;
  for (int i = 0; i < keep; ++i) kept.push_back(column[rows[static_cast<std::size_t>(i)]]);
  std::sort(kept.begin(), kept.end(),
            [](T a, T b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); });
  T sum = -T{0};
  for (T const value : kept) sum += value;
  return sum / static_cast<T>(keep);
}

template <class T>
void check_closest(DType dtype, int rows, std::size_t elements) {
  // Small whole numbers in every other column: many equal values and equal distances.
  Matrix matrix(rows, elements, dtype, 150 + static_cast<std::uint64_t>(rows), false);
  std::mt19937 random(150);
  for (int row = 0; row < rows; ++row)
    for (std::size_t i = 0; i < elements; i += 2) matrix.set(row, i, static_cast<T>(random() % 7) - T{3});
  for (int trim = 0; 2 * trim < rows; trim += 1 + rows / 5)
    for (int const keep : {rows - trim, std::max(1, rows - 3 * trim)}) {
      Output by_median(matrix.rows());
      Output by_mean(matrix.rows());
      coordinate(matrix.rows(), {CoordinateKernel::Kind::closest_to_median, 0, keep}, by_median.data());
      coordinate(matrix.rows(), {CoordinateKernel::Kind::closest_to_trimmed_mean, trim, keep}, by_mean.data());
      for (std::size_t i = 0; i < elements; ++i) {
        std::vector<T> column;
        for (int row = 0; row < rows; ++row) column.push_back(matrix.get<T>(row, i));
        ASSERT_EQ(by_median.as<T>()[i], mean_of_closest(column, true, 0, keep)) << rows << " rows, keep " << keep;
        ASSERT_EQ(by_mean.as<T>()[i], mean_of_closest(column, false, trim, keep)) << rows << " rows, keep " << keep;
      }
    }
}

TEST(Coordinate, keeps_the_values_closest_to_a_centre) {
  for (int rows = 1; rows <= 17; ++rows) {
    check_closest<float>(DType::float32, rows, 301);
    check_closest<double>(DType::float64, rows, 77);
  }
  for (int const rows : {31, 64, 65}) check_closest<float>(DType::float32, rows, 70);
}

TEST(Coordinate, prefers_the_lower_row_among_values_equally_far_from_the_centre) {
  float const values[] = {3, 1, 2, 4, 0};  // the median is 2; 3 and 1 are as far, 4 and 0 too
  std::byte const* rows[5];
  for (int row = 0; row < 5; ++row) rows[row] = reinterpret_cast<std::byte const*>(values + row);
  float out = 0;
  auto const mean_of = [&](int keep) {
    coordinate({rows, 1, DType::float32}, {CoordinateKernel::Kind::closest_to_median, 0, keep},
               reinterpret_cast<std::byte*>(&out));
    return out;
  };
  EXPECT_EQ(mean_of(2), 2.5F);
  EXPECT_EQ(mean_of(4), 2.5F);
  EXPECT_EQ(mean_of(5), 2.0F);
}

TEST(Coordinate, tells_values_apart_that_share_a_large_part) {
  float const values[] = {1.0F, 1.0F + 0x1p-23F, 1.0F + 0x1p-22F, 1.0F + 0x1p-21F};
  std::byte const* rows[4];
  for (int row = 0; row < 4; ++row) rows[row] = reinterpret_cast<std::byte const*>(values + row);
  float out = 0;
  coordinate({rows, 1, DType::float32}, {CoordinateKernel::Kind::closest_to_trimmed_mean, 0, 1},
             reinterpret_cast<std::byte*>(&out));
  EXPECT_EQ(out, 1.0F + 0x1p-22F);
}

TEST(Coordinate, votes_by_sign_and_against_a_balance) {
  float const values[] = {5, -1, -0.0F, 7, -2, 0};
  auto const vote = [&](std::initializer_list<int> voters) {
    std::vector<std::byte const*> rows;
    for (int const voter : voters) rows.push_back(reinterpret_cast<std::byte const*>(values + voter));
    float out = 0;
    coordinate({rows, 1, DType::float32}, {CoordinateKernel::Kind::majority, 0, 0}, reinterpret_cast<std::byte*>(&out));
    return out;
  };
  EXPECT_EQ(vote({0, 1, 3}), 1);
  EXPECT_EQ(vote({0, 1, 4}), -1);
  EXPECT_EQ(vote({0, 1}), -1);
  EXPECT_EQ(vote({2, 5}), -1);
  EXPECT_EQ(vote({0, 2, 5}), 1);
}

TEST(Coordinate, orders_zeros_by_sign) {
  float const values[] = {0.0F, -0.0F, 0.0F};
  std::byte const* rows[3];
  for (int row = 0; row < 3; ++row) rows[row] = reinterpret_cast<std::byte const*>(values + row);
  float out = 1;
  coordinate({rows, 1, DType::float32}, {CoordinateKernel::Kind::median, 0}, reinterpret_cast<std::byte*>(&out));
  EXPECT_FALSE(std::signbit(out));
  coordinate({std::span(rows).first(2), 1, DType::float32}, {CoordinateKernel::Kind::median_lower, 0},
             reinterpret_cast<std::byte*>(&out));
  EXPECT_TRUE(std::signbit(out));
}

TEST(Reduce, wraps_integer_sums_and_products_and_truncates_averages) {
  std::int32_t const a[] = {std::numeric_limits<std::int32_t>::max(), -3, 7, 100'000};
  std::int32_t const b[] = {1, -4, -8, 100'000};
  std::byte const* const rows[] = {reinterpret_cast<std::byte const*>(a), reinterpret_cast<std::byte const*>(b)};
  Rows const input{rows, 4, DType::int32};
  auto const run = [&](Reduction reduction) {
    Output output(input);
    reduce(input, reduction, output.data());
    return output.as<std::int32_t>();
  };
  EXPECT_EQ(run(Reduction::sum),
            (std::vector<std::int32_t>{std::numeric_limits<std::int32_t>::min(), -7, -1, 200'000}));
  EXPECT_EQ(run(Reduction::average),
            (std::vector<std::int32_t>{std::numeric_limits<std::int32_t>::min() / 2, -3, 0, 100'000}));
  EXPECT_EQ(run(Reduction::min), (std::vector<std::int32_t>{1, -4, -8, 100'000}));
  EXPECT_EQ(run(Reduction::max), (std::vector<std::int32_t>{a[0], -3, 7, 100'000}));
  EXPECT_EQ(run(Reduction::product), (std::vector<std::int32_t>{a[0], 12, -56, 1'410'065'408}));
}

TEST(Reduce, propagates_nan_and_puts_minus_zero_below_zero) {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  float const a[] = {nan, 1, 0.0F, -0.0F};
  float const b[] = {2, nan, -0.0F, 0.0F};
  std::byte const* const rows[] = {reinterpret_cast<std::byte const*>(a), reinterpret_cast<std::byte const*>(b)};
  Rows const input{rows, 4, DType::float32};
  for (auto const reduction : {Reduction::min, Reduction::max}) {
    Output output(input);
    reduce(input, reduction, output.data());
    auto const result = output.as<float>();
    EXPECT_TRUE(std::isnan(result[0]) && std::isnan(result[1]));
    EXPECT_EQ(std::signbit(result[2]), reduction == Reduction::min);
    EXPECT_EQ(std::signbit(result[3]), reduction == Reduction::min);
  }
}

TEST(StreamCopy, copies_any_size_to_any_alignment) {
  Bytes source(70'000);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 31 + i / 256);
  for (std::size_t const bytes : {0U, 1U, 63U, 4095U, 4096U, 4097U, 16'384U, 65'537U})
    for (std::size_t const offset : {0U, 1U, 33U, 64U}) {
      Bytes destination(bytes + 256, std::byte{0x55});
      stream_copy(destination.data() + offset, source.data() + 3, bytes);
      EXPECT_TRUE(std::equal(source.begin() + 3, source.begin() + 3 + static_cast<std::ptrdiff_t>(bytes),
                             destination.begin() + static_cast<std::ptrdiff_t>(offset)));
      EXPECT_EQ(destination[offset + bytes], std::byte{0x55});
      if (offset != 0) {
        EXPECT_EQ(destination[offset - 1], std::byte{0x55});
      }
    }
}

}  // namespace
}  // namespace holdfast::kernels
