#include "pipeline/round_pace.hpp"

#include <gtest/gtest.h>

namespace holdfast::pipeline {
namespace {

using namespace std::chrono_literals;

RoundPace::Instant at(std::chrono::milliseconds time) {
  return RoundPace::Instant(1h) + time;
}

TEST(RoundPace, calls_nobody_late_before_half_of_the_members_have_waited_for_the_floor) {
  RoundPace pace({SlowPolicy::skip, 4, 100ms});
  EXPECT_FALSE(pace.is_late(at(1h)));
  pace.half_waits(at(50ms));
  EXPECT_FALSE(pace.is_late(at(149ms)));
  EXPECT_TRUE(pace.is_late(at(150ms)));
}

TEST(RoundPace, allows_a_multiple_of_what_recent_rounds_took) {
  RoundPace pace({SlowPolicy::skip, 3, 10ms});
  for (int round = 0; round < 5; ++round) {
    pace.ended(at(round * 200ms));
    pace.came(at(round * 200ms + 200ms));
  }
  pace.ended(at(1000ms));
  EXPECT_EQ(pace.limit(), 600ms);
  pace.half_waits(at(1200ms));
  EXPECT_FALSE(pace.is_late(at(1599ms)));
  EXPECT_TRUE(pace.is_late(at(1600ms)));
  pace.ended(at(1650ms));
  EXPECT_FALSE(pace.is_late(at(9000ms))) << "nobody waits";
}

TEST(RoundPace, does_not_let_the_limit_grow_with_what_waiting_for_a_late_member_adds) {
  RoundPace pace({SlowPolicy::skip, 3, 10ms});
  auto now = 0ms;
  for (int round = 0; round < 100; ++round) {
    pace.ended(at(now));
    pace.half_waits(at(now + 100ms));
    now += 300ms;  // this member came that late, every time
    pace.came(at(now));
  }
  EXPECT_EQ(pace.limit(), 300ms);
}

}  // namespace
}  // namespace holdfast::pipeline
