#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "shell.hpp"

namespace holdfast::launch::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json const* find(json const& report, std::string const& name) {
  for (auto const& check : report.at("checks"))
    if (check.at("name") == name) return &check;
  return nullptr;
}

TEST(Doctor, finds_a_machine_that_runs_these_tests_usable) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST doctor --json");
  EXPECT_EQ(result.status, 0) << result.out;
  auto const report = json::parse(result.out);
  EXPECT_EQ(report.at("usable"), true);
  ASSERT_NE(find(report, "shm"), nullptr);
  EXPECT_EQ(find(report, "shm")->at("verdict"), "good");
  for (auto const* const name : {"version", "compiler", "loopback", "mpi", "kernel", "cores", "memory", "cgroup",
                                 "huge pages", "127.0.0.1", "open files", "configuration"})
    EXPECT_NE(find(report, name), nullptr) << name;
}

TEST(Doctor, reads_well_on_a_terminal) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST doctor");
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, HasSubstr("\nholdfast can be used here\n"));
}

TEST(Doctor, shows_settings_with_their_source) {
  Shell const shell;
  auto const result = shell.run(R"(
    echo 'op_timeout_ms = 1234' > settings.toml
    HOLDFAST_CONFIG=$TMPDIR/settings.toml HOLDFAST_FABRIC=shm $HOLDFAST doctor --json)");
  EXPECT_EQ(result.status, 0) << result.out;
  auto const report = json::parse(result.out);
  ASSERT_NE(find(report, "HOLDFAST_FABRIC"), nullptr);
  EXPECT_EQ(find(report, "HOLDFAST_FABRIC")->at("value"), "shm (from the environment)");
  ASSERT_NE(find(report, "HOLDFAST_OP_TIMEOUT_MS"), nullptr);
  EXPECT_THAT(find(report, "HOLDFAST_OP_TIMEOUT_MS")->at("value").get<std::string>(), HasSubstr("settings.toml"));
}

TEST(Doctor, flags_a_misspelt_variable_and_a_folder_that_cannot_be_written) {
  Shell const shell;
  auto const misspelt = shell.run("HOLDFAST_FABIRC=shm exec $HOLDFAST doctor");
  EXPECT_EQ(misspelt.status, 1);
  EXPECT_THAT(misspelt.out, HasSubstr("HOLDFAST_FABRIC"));
  auto const unwritable = shell.run("TMPDIR=/proc/none exec $HOLDFAST doctor");
  EXPECT_EQ(unwritable.status, 1);
  EXPECT_THAT(unwritable.out, HasSubstr("-> set TMPDIR to a folder that can be written"));
}

TEST(Doctor, refuses_an_unknown_option) {
  Shell const shell;
  EXPECT_EQ(shell.run("exec $HOLDFAST doctor --jsno").status, 2);
}

}  // namespace
}  // namespace holdfast::launch::test
