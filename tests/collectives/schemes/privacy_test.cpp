#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include <holdfast/collectives/schemes/privacy.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

TEST(PrivacyAccountant, agrees_with_the_accountant_of_opacus) {
  struct Setting {
    double noise;
    double rate;
    std::uint64_t steps;
    double delta;
    double epsilon;  // of opacus 1.6.0, its default orders
  };
  constexpr Setting kSettings[] = {
      {1.0, 0.01, 1000, 1e-05, 2.10137},
      {0.7, 0.01, 1000, 1e-05, 5.4214},
      {1.1, 256.0 / 60000, 14063, 1e-05, 2.59666},
      {2.0, 0.1, 300, 1e-05, 4.56428},
      {4.0, 0.5, 100, 1e-06, 7.00275},
      {1.0, 1.0, 1, 1e-05, 4.72851},
      {5.0, 1.0, 50, 1e-05, 7.07739},
      {0.5, 0.001, 2000, 1e-06, 5.77266},
      {1.3, 0.02, 5000, 1e-07, 7.69779},
      {8.0, 0.2, 1000, 1e-05, 3.65602},
      {3.0, 0.05, 200, 0.001, 0.689624},
      {1.0, 0.005, 20000, 1e-05, 4.46184},
      {20.0, 1.0, 100, 1e-05, 2.16572},
      {0.8, 0.05, 60, 0.0001, 4.64468},
  };
  for (auto const& setting : kSettings) {
    PrivacyAccountant accountant;
    accountant.add_steps(setting.noise, setting.rate, setting.steps);
    EXPECT_NEAR(accountant.epsilon(setting.delta) / setting.epsilon, 1, 0.01)
        << "noise " << setting.noise << ", rate " << setting.rate << ", steps " << setting.steps;
  }
}

TEST(PrivacyAccountant, adds_up_what_different_steps_tell) {
  PrivacyAccountant together;
  together.add_steps(1.0, 0.01, 1000);
  PrivacyAccountant apart;
  for (int part = 0; part < 10; ++part) apart.add_steps(1.0, 0.01, 100);
  EXPECT_NEAR(apart.epsilon(1e-5), together.epsilon(1e-5), 1e-9);
  apart.add_steps(2.0, 0.5, 10);
  EXPECT_GT(apart.epsilon(1e-5), together.epsilon(1e-5));
}

TEST(PrivacyAccountant, knows_the_ends_of_the_scale) {
  PrivacyAccountant accountant;
  EXPECT_LT(accountant.epsilon(0.5), 0.02) << "nothing was told; the conversion has a small remainder";
  accountant.add_steps(0, 0.1, 1);
  EXPECT_TRUE(std::isinf(accountant.epsilon(1e-5)));
  PrivacyAccountant unused;
  unused.add_steps(1, 0, 1000);
  EXPECT_LT(unused.epsilon(0.5), 0.02);
  EXPECT_THROW(accountant.add_steps(-1, 0.1, 1), Error);
  EXPECT_THROW(accountant.add_steps(1, 1.5, 1), Error);
  EXPECT_THROW((void)accountant.epsilon(0), Error);
}

TEST(PrivateGradient, clips_each_example_by_itself) {
  PrivateGradient gradient(2, 1.0, 0.0, 1);
  gradient.add(std::vector<float>{3, 4});
  gradient.add(std::vector<float>{0.5F, 0});
  gradient.add(std::vector<float>{std::numeric_limits<float>::infinity(), 0});
  std::vector<float> out(2);
  gradient.take(out, 0, 2);
  EXPECT_NEAR(out[0], (0.6 + 0.5) / 2, 1e-6);
  EXPECT_NEAR(out[1], 0.8 / 2, 1e-6);
  gradient.take(out, 1, 2);
  EXPECT_EQ(out[0], 0) << "each step starts anew";
}

TEST(PrivateGradient, adds_noise_in_proportion_to_the_bound) {
  constexpr std::size_t kElements = 20'000;
  PrivateGradient gradient(kElements, 2.0, 1.5, 7);
  std::vector<float> out(kElements);
  std::vector<float> next(kElements);
  gradient.take(out, 0, 10);
  gradient.take(next, 1, 10);
  EXPECT_NE(out, next);
  double square = 0;
  for (float const value : out) square += static_cast<double>(value) * static_cast<double>(value);
  EXPECT_NEAR(std::sqrt(square / kElements), 1.5 * 2.0 / 10, 0.01);
}

}  // namespace
}  // namespace holdfast
