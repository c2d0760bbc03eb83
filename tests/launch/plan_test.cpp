#include <algorithm>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "plan_rows.hpp"
#include "shell.hpp"

namespace holdfast::launch::test {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char const* kBillion = "exec $HOLDFAST plan --params 1e9 --layers 24 --step-time 0.1 ";

Json plan(std::string const& arguments) {
  Shell const shell;
  auto const result = shell.run(kBillion + arguments + " --json");
  EXPECT_EQ(result.status, 0) << result.err;
  return Json::parse(result.out, nullptr, false);
}

Json row(Json const& plan, std::string const& method, std::string const& codec) {
  for (auto const& row : plan.at("rows"))
    if (row.at("method") == method && row.at("codec") == codec) return row;
  ADD_FAILURE() << "no row " << method << " " << codec;
  return {};
}

// Table 4 of the paper as the model recomputes it: 16 bits, two replicas.
TEST(Plan, finds_the_bandwidths_of_the_published_table) {
  auto const given = plan("--codec bf16 --overhead-bytes 0");
  auto const gbps = [&](char const* method, int index) {
    return row(given, method, "bf16").at("thresholds").at(index).at("gbps").get<double>();
  };
  EXPECT_NEAR(gbps("dp", 0), 96.4, 0.1);
  EXPECT_NEAR(gbps("dp", 2), 214, 0.5);
  EXPECT_NEAR(gbps("diloco", 1), 6.21, 0.02);
  EXPECT_NEAR(gbps("streaming", 2), 10.4, 0.05);
  EXPECT_NEAR(gbps("streaming_overlap", 3), 9.01, 0.02);
  EXPECT_EQ(given.at("period"), 96);
  EXPECT_THAT(given.at("warning").get<std::string>(), HasSubstr("every 96 steps"));
}

TEST(Plan, compares_four_bits_with_plain_data_parallelism_on_a_link) {
  auto const given = plan("--bandwidth 1e9 --steps 100000");
  auto const dp = row(given, "dp", "identity");
  auto const streaming = row(given, "streaming_overlap", "e3m0_b256");
  EXPECT_LT(dp.at("utilisation"), 0.01);
  EXPECT_NEAR(streaming.at("utilisation").get<double>(), 0.78, 0.01);
  EXPECT_DOUBLE_EQ(streaming.at("speed_ratio_to_dp").get<double>(),
                   streaming.at("utilisation").get<double>() / dp.at("utilisation").get<double>());
  EXPECT_NEAR(streaming.at("hours").get<double>(), 100000 * 0.1 / 3600 / streaming.at("utilisation").get<double>(),
              1e-9);
  EXPECT_GT(streaming.at("smallest_overlap_without_stall"), 1);
  EXPECT_EQ(given.at("suggestion").at("fragments"), 8);
  EXPECT_GT(given.at("suggestion").at("utilisation"), 0.99);
}

TEST(Plan, takes_the_path_by_the_number_of_replicas) {
  EXPECT_EQ(row(plan("--replicas 2"), "streaming", "e3m0_b256").at("path"), "allgather");
  EXPECT_EQ(row(plan("--replicas 3"), "streaming", "e3m0_b256").at("path"), "allgather");
  auto const four = row(plan("--replicas 4"), "streaming", "e3m0_b256");
  EXPECT_EQ(four.at("path"), "twophase");
  EXPECT_NEAR(four.at("path_factor").get<double>() * four.at("bits_per_element").get<double>(), 9.12, 0.01);
  EXPECT_EQ(row(plan("--replicas 4 --path allgather"), "streaming", "e3m0_b256").at("path"), "allgather");
}

TEST(Plan, sweeps_and_draws) {
  auto const swept = plan("--method streaming --sweep overlap=0..3 --utilisation 0.95");
  ASSERT_EQ(swept.at("plans").size(), 4U);
  double previous = 1e9;
  for (auto const& given : swept.at("plans")) {
    ASSERT_EQ(given.at("rows").size(), 1U);
    double const needed = given.at("rows").at(0).at("thresholds").at(0).at("gbps");
    EXPECT_LT(needed, previous * 1.001);
    previous = needed;
  }
  Shell const shell;
  auto const drawn = shell.run(std::string("$HOLDFAST plan --params 1e9 --layers 24 --step-time 0.1 --plot a.svg &&") +
                               kBillion + "--plot b.html --bandwidth 1e9");
  ASSERT_EQ(drawn.status, 0) << drawn.err;
  EXPECT_THAT(contents(shell.path() / "a.svg"), HasSubstr("<polyline"));
  EXPECT_THAT(contents(shell.path() / "b.html"), HasSubstr("</svg>"));
  EXPECT_THAT(drawn.out, HasSubstr("suggestion: --inner-steps"));
}

TEST(Plan, refuses_bad_values_with_the_bound) {
  Shell const shell;
  struct Case {
    char const* arguments;
    char const* message;
  };
  for (auto const& [arguments, message] :
       {Case{"--overlap 96", "overlap: 96 must be from 0 to 95"}, Case{"--codec fp4", "unknown codec 'fp4'"},
        Case{"--replicas 1", "replicas: 1 must be at least 2"}, Case{"--path ring", "valid: auto, allgather, twophase"},
        Case{"--utilisation 0.5,1", "--utilisation: '1' is not valid"}, Case{"--bandwidth 0", "--bandwidth: '0'"},
        Case{"--sweep overlap", "as in overlap=0..5"}, Case{"--plot a.png", "must end in .svg or .html"},
        Case{"--spacing even", "valid: paper, exact"}, Case{"--fragmnets 3", "did you mean '--fragments'?"}}) {
    auto const result = shell.run(std::string(kBillion) + arguments);
    EXPECT_EQ(result.status, 2) << arguments;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
  EXPECT_THAT(shell.run("exec $HOLDFAST plan --params 1e9").err, HasSubstr("--layers is missing"));
}

}  // namespace
}  // namespace holdfast::launch::test
