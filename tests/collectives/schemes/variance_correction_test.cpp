#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/variance_correction.hpp>

namespace holdfast {
namespace {

TEST(VarianceCorrection, gives_the_average_the_variance_of_the_members) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal(2, 0.5);
  std::vector<std::vector<double>> layer(4, std::vector<double>(5000));
  for (auto& row : layer)
    for (auto& value : row) value = normal(random);
  auto const corrected = variance_corrected_average(layer, 1e-6);
  double mean = 0;
  double square = 0;
  for (double const value : corrected) mean += value / 5000;
  for (double const value : corrected) square += (value - mean) * (value - mean) / 5000;
  EXPECT_NEAR(mean, 2, 0.02);
  EXPECT_NEAR(std::sqrt(square), 0.5, 0.01) << "the plain average would have half of it";
}

TEST(VarianceCorrection, needs_two_sums_of_each_shard_alone) {
  std::vector<std::vector<double>> const layer{{1, 2, 3, 4}, {2, 2, 5, 1}};
  auto const whole = variance_corrected_average(layer, 1e-6);
  std::vector<double> const average{1.5, 2, 4, 2.5};
  std::vector<LayerSums> sums;
  for (auto const& row : layer) sums.push_back(LayerSums::of(std::span<double const>(row)));
  auto const correct = variance_correction(sums, LayerSums::of(std::span<double const>(average)), 4);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(correct(average[i]), whole[i], 1e-12);
}

TEST(VarianceCorrection, leaves_equal_constant_layers_alone) {
  EXPECT_EQ(variance_corrected_average(std::vector<std::vector<double>>(3, {7, 7}), 1e-6), (std::vector<double>{7, 7}));
  EXPECT_TRUE(variance_corrected_average({}, 1e-6).empty());
}

}  // namespace
}  // namespace holdfast
