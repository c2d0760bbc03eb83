#include <gmock/gmock.h>

#include "member_process.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class Fault : public testing::MemberProcesses {
 protected:
  /// Exchanges without end; tells the parent when all members are in it.
  Outcome<void> exchange(Group& group, int rank) const {
    for (int turn = 0;; ++turn) {
      auto const parts = group.all_gather("turn", {}, Deadline::after(60s));
      if (!parts) return tl::unexpected(parts.error());
      if (turn == 3) touch("running-" + std::to_string(rank));
    }
  }
  void wait_until_running(int members) const {
    for (int rank = 0; rank < members; ++rank) ASSERT_TRUE(wait_for("running-" + std::to_string(rank)));
  }
  static double ms_between(std::int64_t from_ns, std::int64_t to_ns) {
    return static_cast<double>(to_ns - from_ns) / 1e6;
  }
};

TEST_F(Fault, killed_member_is_named_by_all_others_within_a_second) {
  start(4, [this](Group& group, int rank) { return exchange(group, rank); });
  wait_until_running(4);
  auto const killed = send_signal(2, SIGKILL);
  for (int const rank : {0, 1, 3}) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "member_lost") << result.message;
    EXPECT_EQ(result.members, "2 ");
    EXPECT_THAT(result.message, HasSubstr("rank 2"));
    EXPECT_LT(ms_between(killed, result.at_ns), 1000) << result.message;
    EXPECT_GT(ms_between(killed, result.at_ns), 0);
  }
}

TEST_F(Fault, killed_member_is_noticed_by_members_that_are_computing) {
  start(3, [this](Group& group, int rank) -> Outcome<void> {
    touch("running-" + std::to_string(rank));
    auto const deadline = Deadline::after(30s);
    while (!group.failure() && !deadline.has_passed()) std::this_thread::sleep_for(1ms);
    if (group.failure()) return fail(*group.failure());
    return {};
  });
  wait_until_running(3);
  auto const killed = send_signal(0, SIGKILL);
  for (int const rank : {1, 2}) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "member_lost") << result.message;
    EXPECT_EQ(result.members, "0 ");
    EXPECT_LT(ms_between(killed, result.at_ns), 1000);
  }
}

TEST_F(Fault, stopped_member_is_named_within_five_seconds_and_learns_that_it_was_evicted) {
  start(3, [this](Group& group, int rank) { return exchange(group, rank); });
  wait_until_running(3);
  auto const stopped = send_signal(1, SIGSTOP);
  for (int const rank : {0, 2}) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "member_lost") << result.message;
    EXPECT_EQ(result.members, "1 ");
    EXPECT_GT(ms_between(stopped, result.at_ns), 1500) << "a false suspicion is expensive";
    EXPECT_LT(ms_between(stopped, result.at_ns), 5000);
  }
  send_signal(1, SIGCONT);
  auto const result = result_of(1);
  EXPECT_EQ(result.code, "evicted") << result.message;
}

TEST_F(Fault, short_stop_is_forgiven) {
  start(2, [this](Group& group, int rank) -> Outcome<void> {
    for (int turn = 0; turn < 4 || !std::filesystem::exists(folder_ / "resumed"); ++turn) {
      auto const parts = group.all_gather("turn", {}, Deadline::after(60s));
      if (!parts) return tl::unexpected(parts.error());
      if (turn == 3) touch("running-" + std::to_string(rank));
      if (std::filesystem::exists(folder_ / "resumed")) break;
    }
    return {};
  });
  wait_until_running(2);
  send_signal(1, SIGSTOP);
  std::this_thread::sleep_for(500ms);
  send_signal(1, SIGCONT);
  touch("resumed");
  for (int const rank : {0, 1}) EXPECT_THAT(result_of(rank).code, ::testing::AnyOf("none", "member_left"));
}

TEST_F(Fault, member_that_leaves_is_no_failure_but_named_by_who_needs_it) {
  start(3, [this](Group& group, int rank) -> Outcome<void> {
    auto const together = group.all_gather("together", {}, Deadline::after(30s));
    if (!together) return tl::unexpected(together.error());
    if (rank == 1) return group.leave(Deadline::after(10s));
    return exchange(group, rank);
  });
  EXPECT_EQ(result_of(1).code, "none");
  for (int const rank : {0, 2}) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "member_left") << result.message;
    EXPECT_THAT(result.members, ::testing::AnyOf("1 ", "0 ", "2 "));
  }
}

TEST_F(Fault, other_options_are_refused_everywhere_with_the_difference) {
  start(
      3, [](Group&, int) -> Outcome<void> { return {}; },
      [](Config& config, int rank) {
        if (rank == 2) config.chunk_bytes = 65'536;
      });
  for (int rank = 0; rank < 3; ++rank) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "mismatch") << result.message;
    EXPECT_THAT(result.message, HasSubstr("rank 2"));
    EXPECT_THAT(result.message, HasSubstr("chunk_bytes: 65536 against 1048576"));
  }
}

TEST_F(Fault, other_world_size_is_refused) {
  start(
      2, [](Group&, int) -> Outcome<void> { return {}; },
      [](Config& config, int rank) {
        if (rank == 1) config.world_size = 3;
      });
  for (int rank = 0; rank < 2; ++rank) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "mismatch") << result.message;
    EXPECT_THAT(result.message, HasSubstr("world_size: 3 against 2"));
  }
}

TEST_F(Fault, missing_member_is_named_at_the_start_timeout) {
  start(
      2, [](Group&, int) -> Outcome<void> { return {}; },
      [](Config& config, int) {
        config.world_size = 3;
        config.start_timeout = 300ms;
      });
  for (int rank = 0; rank < 2; ++rank) {
    auto const result = result_of(rank);
    EXPECT_EQ(result.code, "start_failed");
    EXPECT_THAT(result.message, HasSubstr("rank 2 of 3 did not show up"));
  }
}

TEST_F(Fault, directory_of_a_killed_job_can_be_used_again) {
  start(2, [this](Group& group, int rank) { return exchange(group, rank); });
  wait_until_running(2);
  for (int rank = 0; rank < 2; ++rank) {
    send_signal(rank, SIGKILL);
    ::waitpid(pids_[static_cast<std::size_t>(rank)], nullptr, 0);
    std::filesystem::remove(folder_ / ("running-" + std::to_string(rank)));
  }
  pids_.clear();
  start(2, [](Group& group, int) -> Outcome<void> {
    auto const parts = group.all_gather("once", {}, Deadline::after(30s));
    if (!parts) return tl::unexpected(parts.error());
    return {};
  });
  for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(result_of(rank).code, "none") << result_of(rank).message;
}

}  // namespace
}  // namespace holdfast
