#include <gtest/gtest.h>
#include <protocol/failure_detector.hpp>

namespace holdfast::protocol {
namespace {

using namespace std::chrono_literals;

class Detector : public ::testing::Test {
 protected:
  std::vector<int> tick_after(std::chrono::milliseconds pause) { return detector_.tick(now_ += pause); }
  Instant now_{};
  FailureDetector detector_{3, 50ms, 500ms};
};

TEST_F(Detector, suspects_after_the_timeout_of_silence_and_not_before) {
  detector_.watch(1);
  (void)tick_after(0ms);
  for (int period = 1; period <= 10; ++period) EXPECT_TRUE(tick_after(50ms).empty()) << period;
  EXPECT_EQ(tick_after(50ms), std::vector<int>{1});
  EXPECT_EQ(detector_.silence(1), 550ms);
}

TEST_F(Detector, hears) {
  detector_.watch(1);
  for (int period = 0; period < 100; ++period) {
    if (period % 9 == 0) detector_.heard(1);
    EXPECT_TRUE(tick_after(50ms).empty()) << period;
  }
}

TEST_F(Detector, does_not_take_its_own_sleep_for_the_silence_of_others) {
  detector_.watch(1);
  (void)tick_after(0ms);
  EXPECT_TRUE(tick_after(1h).empty());
  EXPECT_TRUE(tick_after(50ms).empty());
  detector_.heard(1);
  EXPECT_TRUE(tick_after(50ms).empty());
  EXPECT_EQ(detector_.silence(1), 0ms);
}

TEST_F(Detector, still_suspects_when_every_tick_is_late) {
  detector_.watch(1);
  (void)tick_after(0ms);
  int ticks = 0;
  while (tick_after(400ms).empty()) ASSERT_LT(++ticks, 10);
}

TEST_F(Detector, ignores_who_is_not_watched) {
  detector_.watch(1);
  detector_.unwatch(1);
  for (int period = 0; period < 100; ++period) EXPECT_TRUE(tick_after(50ms).empty());
}

}  // namespace
}  // namespace holdfast::protocol
