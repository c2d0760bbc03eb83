#include "bucket_plan.hpp"

#include <gtest/gtest.h>

namespace holdfast::optim {
namespace {

std::size_t all_elements(std::vector<PlannedBucket> const& plan) {
  std::size_t sum = 0;
  for (auto const& bucket : plan) sum += bucket.elements;
  return sum;
}

TEST(BucketPlan, goes_backwards_and_starts_with_a_small_bucket) {
  auto const plan = plan_buckets(std::vector<PlannedParameter>(6, {100, DType::float32}), 450, 1300);
  ASSERT_EQ(plan.size(), 3U);
  EXPECT_EQ(plan[0].parameters, (std::vector<std::size_t>{5}));
  EXPECT_EQ(plan[1].parameters, (std::vector<std::size_t>{4, 3, 2}));
  EXPECT_EQ(plan[2].parameters, (std::vector<std::size_t>{1, 0}));
}

TEST(BucketPlan, loses_nothing_when_parameters_do_not_fit_together) {
  auto const plan =
      plan_buckets({{6, DType::float32}, {6, DType::float32}, {6, DType::float32}, {90, DType::float32}}, 40, 40);
  EXPECT_EQ(all_elements(plan), 108U);
  EXPECT_EQ(plan.size(), 4U);
}

TEST(BucketPlan, keeps_element_types_apart) {
  auto const plan = plan_buckets({{3, DType::float64}, {4, DType::float32}, {5, DType::float64}, {0, DType::float32}},
                                 1 << 20, 1 << 20);
  ASSERT_EQ(plan.size(), 2U);
  EXPECT_EQ(plan[0].dtype, DType::float32);
  EXPECT_EQ(plan[0].parameters, (std::vector<std::size_t>{3, 1}));
  EXPECT_EQ(plan[1].parameters, (std::vector<std::size_t>{2, 0}));
  EXPECT_EQ(plan[1].elements, 8U);
}

TEST(BucketPlan, by_layer_keeps_weight_and_bias_of_a_module_together) {
  auto const plan = plan_layers(
      {{6, DType::float32}, {2, DType::float32}, {8, DType::float32}, {4, DType::float64}, {1, DType::float32}},
      {"block.0.weight", "block.0.bias", "block.1.weight", "block.1.bias", "scale"});
  ASSERT_EQ(plan.size(), 4U);
  EXPECT_EQ(plan[0].parameters, (std::vector<std::size_t>{4}));
  EXPECT_EQ(plan[1].parameters, (std::vector<std::size_t>{3}));
  EXPECT_EQ(plan[2].parameters, (std::vector<std::size_t>{2}));
  EXPECT_EQ(plan[3].parameters, (std::vector<std::size_t>{1, 0}));
  EXPECT_EQ(plan[3].elements, 8U);
}

TEST(BucketPlan, of_nothing_is_nothing) {
  EXPECT_TRUE(plan_buckets({}, 1, 1).empty());
}

}  // namespace
}  // namespace holdfast::optim
