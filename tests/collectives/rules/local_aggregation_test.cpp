#include <limits>

#include <gtest/gtest.h>

#include <holdfast/collectives/local_aggregation.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

struct Members {
  std::vector<std::vector<float>> rows{{0, 1}, {1, 1}, {2, 1}, {3, 1}, {100, 1}};
  std::vector<float> result = std::vector<float>(2);

  Outcome<LocalAggregation> aggregate(std::string const& rule, LocalAggregationOptions options = {}) {
    std::vector<ConstBuffer> buffers;
    for (auto const& row : rows) buffers.emplace_back(std::span<float const>(row));
    options.byzantine = 1;
    return aggregate_rows(Rule::parse(rule), buffers, std::span<float>(result), options);
  }
};

TEST(LocalAggregation, applies_a_rule_and_tells_what_it_left_out) {
  Members members;
  auto const done = members.aggregate("mda");
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(members.result, (std::vector<float>{1.5F, 1}));
  EXPECT_EQ(done->unused, (std::vector<int>{4}));
  members.rows[2][0] = std::numeric_limits<float>::quiet_NaN();
  auto const screened = members.aggregate("mda");
  ASSERT_TRUE(screened.has_value());
  EXPECT_EQ(screened->non_finite, (std::vector<int>{2}));
  EXPECT_EQ(members.result[0], 26) << "f is used up by the row that was screened";
  members.rows[3][1] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(members.aggregate("mda").error().code, Errc::too_many_faulty_rows);
}

TEST(LocalAggregation, writes_the_output_of_the_member_that_asks) {
  Members members;
  LocalAggregationOptions options;
  ASSERT_TRUE(members.aggregate("nna", options).has_value());
  EXPECT_EQ(members.result[0], 1.5F);
  options.member = 4;
  ASSERT_TRUE(members.aggregate("nna", options).has_value());
  EXPECT_EQ(members.result[0], 26.5F);
}

TEST(LocalAggregation, continues_from_a_centre) {
  Members members;
  std::vector<float> const center{1.5F, 1};
  LocalAggregationOptions options;
  options.center = std::span<float const>(center);
  ASSERT_TRUE(members.aggregate("centered_clipping(threshold=1, iterations=1)", options).has_value());
  EXPECT_FLOAT_EQ(members.result[0], 1.5F + (-1 - 0.5F + 0.5F + 1 + 1) / 5);
  ASSERT_TRUE(members.aggregate("centered_clipping(center=median, threshold=1)").has_value());
  EXPECT_NEAR(members.result[0], 2, 1.01);
}

TEST(LocalAggregation, refuses_rows_that_do_not_fit) {
  Members members;
  members.rows[1].push_back(0);
  EXPECT_THROW((void)members.aggregate("mean"), Error);
}

}  // namespace
}  // namespace holdfast
