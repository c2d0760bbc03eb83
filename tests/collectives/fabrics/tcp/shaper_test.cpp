#include "fabrics/tcp/shaper.hpp"

#include <string>

#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::fabrics {
namespace {

using namespace std::chrono_literals;

TEST(EmulatedLink, is_read_from_text) {
  EXPECT_FALSE(parse_emulated_link(""));
  auto const both = parse_emulated_link("25ms,50mbit");
  ASSERT_TRUE(both);
  EXPECT_EQ(both->delay, 25ms);
  EXPECT_DOUBLE_EQ(both->bytes_per_second, 6.25e6);
  EXPECT_EQ(parse_emulated_link("1.5s")->delay, 1500ms);
  EXPECT_EQ(parse_emulated_link("300us,1gbit")->delay, 300us);
  EXPECT_DOUBLE_EQ(parse_emulated_link("64kbit")->bytes_per_second, 8000);
  EXPECT_EQ(parse_emulated_link("64kbit,20ms")->delay, 20ms);
}

TEST(EmulatedLink, refuses_what_is_no_delay_and_no_rate) {
  for (auto const* const text : {"25", "ms", "25ms,", ",", "25 ms", "-1ms", "0mbit", "nanms", "infmbit", "1e99ms",
                                 "25ms,30ms", "5mbit,6mbit", "25ms,50mbit,1ms", "61s", "50MBit"})
    EXPECT_THROW((void)parse_emulated_link(text), Error) << text;
}

TEST(Shaper, lets_bytes_out_at_its_rate_however_late_it_is_asked) {
  TcpShaper shaper({10ms, 1e6});
  auto const start = TcpShaper::TimePoint(1h);
  EXPECT_TRUE(shaper.is_free(start));
  EXPECT_EQ(shaper.take(1000, start), start + 11ms);
  EXPECT_FALSE(shaper.is_free(start));
  auto now = start;
  for (int frame = 2; frame <= 100; ++frame) {
    shaper.want();
    now = shaper.free_at() + 700us;  // always late
    EXPECT_EQ(shaper.take(1000, now), start + 10ms + frame * 1ms);
  }
}

TEST(Shaper, does_not_save_up_what_nobody_wanted) {
  TcpShaper shaper({0ms, 1e6});
  auto const start = TcpShaper::TimePoint(1h);
  (void)shaper.take(1000, start);
  EXPECT_EQ(shaper.take(1000, start + 1s), start + 1001ms);
}

}  // namespace
}  // namespace holdfast::fabrics
