// `holdfast bench` starts its own ranks and prints JSON that other programs rely on.
#include <sstream>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "build_info.hpp"
#include "shell.hpp"

namespace holdfast::launch::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kQuick[] = " --iterations 5 --repeats 1";

std::vector<json> lines_of(std::string const& text) {
  std::vector<json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
  return lines;
}

TEST(Bench, prints_one_json_object_per_size) {
  Shell const shell;
  auto const result =
      shell.run(std::string("exec $HOLDFAST bench all-reduce --fabric shm --ranks 2 --bytes 4K,64K --json") + kQuick);
  ASSERT_EQ(result.status, 0) << result.err;
  auto const lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 2u);
  for (auto const& line : lines) {
    EXPECT_EQ(line.at("collective"), "all-reduce");
    EXPECT_EQ(line.at("fabric"), "shm");
    EXPECT_EQ(line.at("ranks"), 2);
    EXPECT_EQ(line.at("rule"), "sum");
    EXPECT_EQ(line.at("buffers"), "arena");
    EXPECT_EQ(line.at("commit"), false);
    EXPECT_GT(line.at("median_s").get<double>(), 0);
    EXPECT_LE(line.at("min_s").get<double>(), line.at("median_s").get<double>());
    EXPECT_GE(line.at("max_s").get<double>(), line.at("median_s").get<double>());
    EXPECT_TRUE(line.at("against").is_null());
    EXPECT_TRUE(line.at("against_median_s").is_null());
    EXPECT_TRUE(line.at("ratio").is_null());
    EXPECT_EQ(line.at("wrong"), 0);
  }
  EXPECT_EQ(lines[0].at("bytes"), 4096);
  EXPECT_EQ(lines[1].at("bytes"), 65536);
}

TEST(Bench, results_are_right_for_rules_dtypes_and_buffers) {
  Shell const shell;
  for (auto const* const arguments :
       {"aggregate --ranks 3", "aggregate --ranks 4 --rule nnm+trimmed_mean --byzantine 1 --commit",
        "aggregate --ranks 2 --buffers user --dtype bfloat16", "all-reduce --ranks 3 --dtype int64 --commit",
        "all-reduce --ranks 3 --dtype float16", "all-reduce --ranks 1", "all-reduce --ranks 3 --fabric loopback"}) {
    auto const result = shell.run(std::string("exec $HOLDFAST bench ") + arguments + " --bytes 8,4K --json" + kQuick);
    EXPECT_EQ(result.status, 0) << arguments << ": " << result.err;
    for (auto const& line : lines_of(result.out)) EXPECT_EQ(line.at("wrong"), 0) << arguments;
  }
}

TEST(Bench, committed_results_are_what_plain_memory_is_timed_with) {
  Shell const shell;
  auto const result =
      shell.run(std::string("exec $HOLDFAST bench aggregate --buffers user --bytes 4K --json") + kQuick);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(lines_of(result.out).at(0).at("commit"), true);
  EXPECT_EQ(lines_of(result.out).at(0).at("rule"), "mean");
}

TEST(Bench, measures_more_collectives_than_a_round_holds) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST bench all-reduce --bytes 4K --iterations 600 --repeats 1 --json");
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(lines_of(result.out).at(0).at("iterations"), 600);
}

TEST(Bench, compares_with_mpi) {
  if (!build_info::kWithMpi) GTEST_SKIP() << "this build has no MPI side";
  Shell const shell;
  auto const result =
      shell.run(std::string("exec $HOLDFAST bench all-reduce --ranks 2 --bytes 64K --against mpi --json") + kQuick);
  ASSERT_EQ(result.status, 0) << result.err;
  auto const line = lines_of(result.out).at(0);
  EXPECT_EQ(line.at("against"), "mpi");
  EXPECT_DOUBLE_EQ(line.at("ratio").get<double>(),
                   line.at("against_median_s").get<double>() / line.at("median_s").get<double>());
}

TEST(Bench, measures_the_mpi_fabric_through_mpirun) {
  if (!build_info::kWithMpi) GTEST_SKIP() << "this build has no mpi fabric";
  Shell const shell;
  auto const result =
      shell.run(std::string("exec $HOLDFAST bench all-reduce --fabric mpi --ranks 2 --bytes 64K --json") + kQuick);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(lines_of(result.out).at(0).at("fabric"), "mpi");
  EXPECT_EQ(lines_of(result.out).at(0).at("wrong"), 0);
}

TEST(Bench, prints_the_columns_of_nccl_tests) {
  Shell const shell;
  auto const result = shell.run(std::string("exec $HOLDFAST bench all-reduce --bytes 4K") + kQuick);
  ASSERT_EQ(result.status, 0) << result.err;
  for (auto const* const column : {"size", "count", "type", "redop", "time", "algbw", "busbw", "#wrong"})
    EXPECT_THAT(result.out, HasSubstr(column));
  EXPECT_THAT(result.out, HasSubstr("        4096         1024   float32                    sum"));
}

TEST(Bench, measures_codecs_against_memory) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST bench codecs --codec e3m0,int8 --elements 100000 --repeats 2 --json");
  ASSERT_EQ(result.status, 0) << result.err;
  auto const lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_EQ(lines[0].at("codec"), "e3m0_b256");
  EXPECT_EQ(lines[0].at("direction"), "encode");
  EXPECT_EQ(lines[1].at("direction"), "decode");
  EXPECT_EQ(lines[2].at("direction"), "decode_accumulate");
  EXPECT_EQ(lines[3].at("codec"), "int8_b256");
  for (auto const& line : lines) {
    EXPECT_EQ(line.at("elements"), 100000);
    EXPECT_GT(line.at("bytes_per_s").get<double>(), 0);
    EXPECT_DOUBLE_EQ(line.at("memory_fraction").get<double>(),
                     line.at("bytes_per_s").get<double>() / line.at("memory_bytes_per_s").get<double>());
  }
}

TEST(Bench, refuses_bad_values_with_the_valid_ones) {
  Shell const shell;
  struct Case {
    char const* arguments;
    char const* message;
  };
  for (auto const& [arguments, message] :
       {Case{"all-reduce --bytes 12Q", "--bytes: '12Q' is not valid; expected a size"},
        Case{"all-reduce --bytes 6", "--bytes: 6 is not a whole number of float32 elements"},
        Case{"all-reduce --fabric xyz", "--fabric: 'xyz' is not valid; valid: shm, tcp, mpi, loopback"},
        Case{"all-reduce --ranks 0", "--ranks: '0' is not valid; expected a whole number from 1 to 256"},
        Case{"all-reduce --dtype half", "valid: float32, float64, float16, bfloat16, int32, int64"},
        Case{"all-reduce --buffers heap", "valid: arena, user"}, Case{"all-reduce --against nccl", "valid: mpi"},
        Case{"all-reduce --rule median", "belong to `holdfast bench aggregate`"},
        Case{"all-reduce --repaets 3", "did you mean '--repeats'?"},
        Case{"allreduce", "valid: all-reduce, aggregate, codecs"},
        Case{"codecs --codec e4m0", "unknown codec 'e4m0'; did you mean 'e3m0'?"},
        Case{"codecs --elements 0", "--elements: '0' is not valid"}, Case{"", "valid: all-reduce, aggregate"},
        Case{"aggregate --rule krmu", "unknown rule 'krmu'"},
        Case{"aggregate --dtype int32", "valid: float32, float64, float16, bfloat16"},
        Case{"aggregate --rule krum --byzantine 1 --ranks 4", "--byzantine: krum needs 2f + 2 < n"}}) {
    auto const result = shell.run(std::string("exec $HOLDFAST bench ") + arguments);
    EXPECT_EQ(result.status, 2) << arguments;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

}  // namespace
}  // namespace holdfast::launch::test
