#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/spsa.hpp>

namespace holdfast {
namespace {

TEST(OneByteScalar, keeps_a_number_to_three_percent_and_its_sign) {
  for (double value = std::exp(-7.9); value < std::exp(7.9); value *= 1.01)
    for (double const sign : {1.0, -1.0}) {
      auto const restored = OneByteScalar::from_word(OneByteScalar::encode(sign * value).word()).decode();
      EXPECT_LE(std::abs(restored / (sign * value) - 1), std::exp(1.0 / 32) - 1 + 1e-12) << sign * value;
    }
}

TEST(OneByteScalar, has_a_zero_and_ends) {
  EXPECT_EQ(OneByteScalar::encode(0).power, -128);
  EXPECT_EQ(OneByteScalar::encode(0).decode(), 0);
  EXPECT_EQ(OneByteScalar::encode(1e9).power, 127);
  EXPECT_EQ(OneByteScalar::encode(-1e-9).power, -127);
  EXPECT_LT(OneByteScalar::encode(-1e-9).decode(), 0);
  EXPECT_EQ(OneByteScalar::encode(std::nan("")).decode(), 0);
}

TEST(SpsaDirection, is_the_same_wherever_it_is_asked_for) {
  SpsaDirection const direction(5, 17, 2, 1);
  std::vector<float> whole(1000, 0);
  direction.add_to(whole, 1);
  std::vector<float> part(100, 0);
  direction.add_to(part, 1, 300);
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(part[i], whole[300 + i]);
  std::vector<float> other(1000, 0);
  SpsaDirection(5, 17, 3, 1).add_to(other, 1);
  EXPECT_NE(other, whole);
  double mean = 0;
  double square = 0;
  for (float const value : whole) {
    mean += value / 1000.0;
    square += static_cast<double>(value) * static_cast<double>(value) / 1000.0;
  }
  EXPECT_NEAR(mean, 0, 0.15);
  EXPECT_NEAR(square, 1, 0.2);
}

TEST(Spsa, goes_downhill_on_a_quadratic) {
  std::vector<float> x(20, 1);
  auto const loss = [&] {
    double sum = 0;
    for (float const value : x) sum += static_cast<double>(value) * static_cast<double>(value);
    return sum / 2;
  };
  double const start = loss();
  for (std::uint64_t step = 0; step < 400; ++step) {
    SpsaDirection const z(1, step, 0, 0);
    constexpr double kEps = 1e-2;
    z.add_to(x, kEps);
    double const above = loss();
    z.add_to(x, -2 * kEps);
    double const below = loss();
    z.add_to(x, kEps);
    z.add_to(x, -0.01 * OneByteScalar::encode(spsa_slope(above, below, kEps)).decode());
  }
  EXPECT_LT(loss(), start / 10);
}

}  // namespace
}  // namespace holdfast
