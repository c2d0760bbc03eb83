#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>
#include <holdfast/runtime/outcome.hpp>

namespace holdfast {
namespace {

using ::testing::HasSubstr;

TEST(EventLog, writes_one_object_a_line_from_any_thread) {
  auto const folder = std::filesystem::temp_directory_path() / ("holdfast-events-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  {
    EventLog log((folder / "rank-%r.jsonl").string(), 3);
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread)
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i)
          log.record("view_failed", {{"members", std::int64_t{2}}, {"detail", std::string("a\"\n\xff")}});
      });
  }
  std::ifstream file(folder / "rank-3.jsonl");
  int lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    EXPECT_THAT(line, HasSubstr("\"rank\":3,\"event\":\"view_failed\",\"members\":2,\"detail\":\"a\\\"\\n"));
    EXPECT_EQ(line.back(), '}');
  }
  EXPECT_EQ(lines, 200);
  std::filesystem::remove_all(folder);
}

TEST(EventLog, refuses_a_path_that_cannot_be_written_and_swallows_without_one) {
  EXPECT_THROW(EventLog("/no/such/folder/log", 0), Error);
  EventLog silent;
  silent.record("nothing");
  EXPECT_FALSE(silent.is_open());
}

TEST(Failure, is_one_line_with_everything) {
  Failure failure;
  failure.code = Errc::member_lost;
  failure.failed_members = {MemberId{3}};
  failure.operation = "aggregate #418 on stream gradients";
  failure.elapsed = std::chrono::milliseconds(2100);
  failure.where = "heartbeat";
  failure.detail = "rank 3 silent";
  EXPECT_EQ(failure.message(),
            "member_lost in aggregate #418 on stream gradients (member 3) after 2.1 s: rank 3 silent [heartbeat]");
  EXPECT_EQ(failure.exit_code(), 1);
  failure.code = Errc::parked;
  EXPECT_EQ(failure.exit_code(), 75);
}

TEST(Log, refuses_an_unknown_level) {
  EXPECT_THROW(set_log_level("loud"), Error);
}

TEST(AssertDeathTest, ends_by_a_signal_and_says_why) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        set_log_level("error");
        HOLDFAST_ASSERT(1 + 1 == 3, "arithmetic holds");
      },
      ::testing::KilledBySignal(SIGABRT), "arithmetic holds");
}

}  // namespace
}  // namespace holdfast
