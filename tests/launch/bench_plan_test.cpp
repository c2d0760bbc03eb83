#include "bench_plan.hpp"

#include <fstream>

#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>

#include "bench_values.hpp"
#include "local_ranks.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

TEST(BenchPlan, survives_the_way_to_the_ranks) {
  BenchPlan plan;
  plan.is_aggregate = true;
  plan.fabric = "mpi";
  plan.ranks = 5;
  plan.sizes = {4096, std::uint64_t{1} << 33};
  plan.rule = "nnm+centered_clipping(iterations=3)";
  plan.byzantine = 1;
  plan.uses_arena = false;
  plan.commits = true;
  plan.dtype = DType::bfloat16;
  plan.iterations = 9;
  auto const copy = decode_plan(encode(plan));
  EXPECT_EQ(encode(copy), encode(plan));
  EXPECT_EQ(copy.sizes, plan.sizes);
  EXPECT_EQ(copy.rule, plan.rule);
  EXPECT_EQ(copy.dtype, plan.dtype);
  EXPECT_THROW(static_cast<void>(decode_plan("nonsense")), UsageError);
}

TEST(BenchPlan, measures_small_messages_more_often) {
  BenchPlan plan;
  EXPECT_EQ(iterations_for(plan, 4096), 200);
  EXPECT_EQ(iterations_for(plan, std::uint64_t{1} << 30), 6);
  plan.iterations = 11;
  EXPECT_EQ(iterations_for(plan, 4096), 11);
}

TEST(Median, takes_the_middle) {
  EXPECT_DOUBLE_EQ(median({3, 1, 2}), 2);
  EXPECT_DOUBLE_EQ(median({4, 1, 2, 3}), 2.5);
}

TEST(Measurements, are_read_as_written_and_refused_when_missing_or_cut) {
  TemporaryFolder const folder;
  auto const file = folder.path() / "result";
  EXPECT_THROW(static_cast<void>(read_measurements(file)), Error);
  std::ofstream(file) << measurement_line({4096, 2, {1.5, 2.5}}) << measurement_line({8, 0, {0.25}});
  auto const read = read_measurements(file);
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[0].bytes, 4096u);
  EXPECT_EQ(read[0].wrong, 2u);
  EXPECT_EQ(read[0].seconds, (std::vector<double>{1.5, 2.5}));
  std::ofstream(file) << "4096 0\n";
  EXPECT_THROW(static_cast<void>(read_measurements(file)), Error);
}

TEST(BenchValues, one_rank_is_its_own_sum_in_every_dtype) {
  for (auto const dtype :
       {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int32, DType::int64}) {
    constexpr std::size_t kElements = 23;
    std::vector<std::byte> memory(kElements * element_bytes(dtype));
    MutableBuffer const buffer(memory.data(), kElements, dtype);
    fill_bench_values(buffer, 0);
    EXPECT_EQ(count_wrong(buffer, 1, Expected::sum), 0u) << name(dtype);
    EXPECT_EQ(count_wrong(buffer, 1, Expected::mean), 0u) << name(dtype);
    EXPECT_EQ(count_wrong(buffer, 3, Expected::between), 0u) << name(dtype);
    EXPECT_EQ(count_wrong(buffer, 2, Expected::sum), kElements) << name(dtype) << ": a contribution is missing";
    fill_bench_values(buffer, 3);
    EXPECT_EQ(count_wrong(buffer, 1, Expected::sum), kElements) << name(dtype) << ": another rank's values";
  }
}

TEST(BenchValues, a_number_that_is_none_is_wrong) {
  std::vector<float> values{0.0F / 1.0F, std::numeric_limits<float>::quiet_NaN(), -1.0F, 1e9F};
  EXPECT_EQ(count_wrong(std::span<float const>(values), 2, Expected::between), 3u);
}

}  // namespace
}  // namespace holdfast::launch
