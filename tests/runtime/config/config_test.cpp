#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <config/keys.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  void TearDown() override {
    for (auto const& name : names_) ::unsetenv(name.c_str());
  }
  void set(std::string const& name, std::string const& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    names_.push_back(name);
  }
  static std::string refusal(auto&& act) {
    try {
      act();
    } catch (Error const& error) {
      return error.what();
    }
    return "nothing was refused";
  }
  static std::string refusal() {
    return refusal([] { (void)Config::from_environment(); });
  }
  std::vector<std::string> names_;
};

TEST_F(ConfigTest, has_defaults_that_are_valid) {
  auto const config = Config::from_environment();
  EXPECT_FALSE(config.rank);
  EXPECT_EQ(config.heartbeat_timeout, 500ms);
  EXPECT_EQ(config.on_loss, "shrink");
  EXPECT_EQ(config.quorum, "auto");
  EXPECT_EQ(config.chunk_bytes, 1U << 20);
  EXPECT_EQ(config.arena_bytes, 17'179'869'184U);
}

TEST_F(ConfigTest, reads_the_environment) {
  set("HOLDFAST_RANK", "2");
  set("HOLDFAST_WORLD_SIZE", "3");
  set("HOLDFAST_OP_TIMEOUT_MS", "1500");
  set("HOLDFAST_CHUNK_BYTES", "4M");
  set("HOLDFAST_FABRIC", "shm");
  set("HOLDFAST_JOB_ID", "");
  auto const config = Config::from_environment();
  EXPECT_EQ(config.rank, 2);
  EXPECT_EQ(config.op_timeout, 1500ms);
  EXPECT_EQ(config.chunk_bytes, 4U << 20);
  EXPECT_EQ(config.fabric, "shm");
  EXPECT_EQ(config.job_id, "");
}

TEST_F(ConfigTest, lists_valid_variables_nearest_first_for_an_unknown_one) {
  set("HOLDFAST_OP_TIMEOUT", "1500");
  EXPECT_THAT(refusal(), HasSubstr("HOLDFAST_OP_TIMEOUT; did you mean HOLDFAST_OP_TIMEOUT_MS?"));
  EXPECT_THAT(refusal(), HasSubstr("HOLDFAST_RENDEZVOUS"));
}

TEST_F(ConfigTest, names_value_and_bound_of_an_ill_typed_value) {
  set("HOLDFAST_OP_TIMEOUT_MS", "soon");
  EXPECT_THAT(refusal(), HasSubstr("op_timeout_ms = \"soon\" is not a whole number from 1 to"));
  set("HOLDFAST_OP_TIMEOUT_MS", "0");
  EXPECT_THAT(refusal(), HasSubstr("\"0\""));
  set("HOLDFAST_OP_TIMEOUT_MS", "10s");
  EXPECT_THAT(refusal(), HasSubstr("\"10s\""));
  set("HOLDFAST_OP_TIMEOUT_MS", "99999999999999999999");
  EXPECT_THAT(refusal(), HasSubstr("is not a whole number"));
}

TEST_F(ConfigTest, lists_the_choices) {
  set("HOLDFAST_FABRIC", "shmem");
  EXPECT_THAT(refusal(), HasSubstr("one of: shm, "));
}

TEST_F(ConfigTest, checks_what_belongs_together) {
  set("HOLDFAST_RANK", "3");
  set("HOLDFAST_WORLD_SIZE", "3");
  EXPECT_THAT(refusal(), HasSubstr("must be below world_size"));
  ::unsetenv("HOLDFAST_RANK");
  set("HOLDFAST_HEARTBEAT_TIMEOUT_MS", "100");
  EXPECT_THAT(refusal(), HasSubstr("at least 4 x heartbeat_period_ms = 200"));
}

TEST_F(ConfigTest, takes_its_arguments_and_leaves_the_others) {
  set("HOLDFAST_RANK", "0");
  set("HOLDFAST_WORLD_SIZE", "3");
  std::vector<std::string> texts{"train",        "--holdfast-rank", "2", "--lr", "0.1", "--holdfast-op-timeout-ms=7",
                                 "--holdfast-x", "--holdfast",      "y"};
  texts.erase(texts.begin() + 6);
  std::vector<char*> arguments;
  for (auto& text : texts) arguments.push_back(text.data());
  arguments.push_back(nullptr);
  int argc = static_cast<int>(texts.size());
  auto const config = Config::from_command_line(argc, arguments.data());
  EXPECT_EQ(config.rank, 2);
  EXPECT_EQ(config.world_size, 3);
  EXPECT_EQ(config.op_timeout, 7ms);
  EXPECT_EQ(std::vector<std::string>(arguments.begin(), arguments.begin() + argc),
            (std::vector<std::string>{"train", "--lr", "0.1", "--holdfast", "y"}));
  EXPECT_EQ(arguments[static_cast<std::size_t>(argc)], nullptr);
}

TEST_F(ConfigTest, refuses_bad_arguments) {
  auto const parse = [](std::string argument) {
    return refusal([&] {
      std::string program = "train";
      char* arguments[] = {program.data(), argument.data(), nullptr};
      int argc = 2;
      (void)Config::from_command_line(argc, arguments);
    });
  };
  EXPECT_THAT(parse("--holdfast-rang=1"), HasSubstr("did you mean \"rank\"?"));
  EXPECT_THAT(parse("--holdfast-rank"), HasSubstr("needs a value"));
}

TEST_F(ConfigTest, reads_a_file_below_the_environment) {
  auto const path =
      std::filesystem::temp_directory_path() / ("holdfast-config-" + std::to_string(::getpid()) + ".toml");
  auto const write = [&](char const* text) { std::ofstream(path) << text; };
  set("HOLDFAST_CONFIG", path.string());
  write("op_timeout_ms = 11\nstart_timeout_ms = 12\nfabric = \"shm\"\n");
  set("HOLDFAST_START_TIMEOUT_MS", "13");
  auto const config = Config::from_environment();
  EXPECT_EQ(config.op_timeout, 11ms);
  EXPECT_EQ(config.start_timeout, 13ms);
  EXPECT_EQ(config.fabric, "shm");
  write("op_timeout = 11\n");
  EXPECT_THAT(refusal(), HasSubstr("did you mean \"op_timeout_ms\"?"));
  write("op_timeout_ms = [1]\n");
  EXPECT_THAT(refusal(), HasSubstr("line 1"));
  write("\n= 3\n");
  EXPECT_THAT(refusal(), HasSubstr("line 2"));
  std::filesystem::remove(path);
  EXPECT_THAT(refusal(), HasSubstr("does not exist"));
}

TEST_F(ConfigTest, prints_and_documents_every_key) {
  auto const table = Config::documentation();
  auto const lines = Config{}.print();
  for (auto const& key : config::keys()) {
    EXPECT_THAT(table, HasSubstr("`" + key.variable() + "`"));
    EXPECT_THAT(lines, HasSubstr(key.name + " = "));
  }
}

TEST_F(ConfigTest, table_in_the_readme_is_the_generated_one) {
  std::ifstream file(HOLDFAST_TEST_RUNTIME_README);
  std::ostringstream content;
  content << file.rdbuf();
  EXPECT_THAT(content.str(), HasSubstr(Config::documentation())) << "paste this table into runtime/README.md:\n"
                                                                 << Config::documentation();
}

}  // namespace
}  // namespace holdfast
