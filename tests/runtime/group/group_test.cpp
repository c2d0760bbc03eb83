#include <atomic>
#include <cstdlib>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/log.hpp>

#include "in_threads.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using testing::bytes_of;
using testing::ending_config;
using testing::patient_config;
using ::testing::HasSubstr;
using testing::run_members;
using testing::text_of;

class GroupInThreads : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_log_level("off"); }
  std::vector<Group> groups_ = Group::in_threads(GetParam(), patient_config());
};

TEST_P(GroupInThreads, has_the_same_view_at_every_member) {
  for (int rank = 0; rank < GetParam(); ++rank) {
    auto& group = groups_[static_cast<std::size_t>(rank)];
    EXPECT_EQ(group.rank(), rank);
    EXPECT_EQ(group.world_size(), GetParam());
    EXPECT_EQ(group.view(), groups_.front().view());
    EXPECT_EQ(group.view().rank_of(group.self()), rank);
    EXPECT_FALSE(group.failure());
  }
}

TEST_P(GroupInThreads, all_gather_gives_the_parts_of_all_in_rank_order) {
  run_members(groups_, [](Group& group, int rank) {
    for (int turn = 0; turn < 20; ++turn) {
      auto const parts = group.all_gather("turns", bytes_of(std::to_string(100 * turn + rank)), Deadline::after(20s));
      ASSERT_TRUE(parts) << parts.error().message();
      ASSERT_EQ(parts->size(), static_cast<std::size_t>(group.world_size()));
      for (int other = 0; other < group.world_size(); ++other)
        EXPECT_EQ(text_of((*parts)[static_cast<std::size_t>(other)]), std::to_string(100 * turn + other));
    }
  });
}

TEST_P(GroupInThreads, splits_into_groups_of_their_own) {
  run_members(groups_, [](Group& group, int rank) {
    auto site = group.subgroup(rank % 2 == 0 ? "even" : "odd");
    int const members = (group.world_size() + 1 - rank % 2) / 2;
    EXPECT_EQ(site.world_size(), members);
    EXPECT_EQ(site.rank(), rank / 2);
    auto const parts = site.all_gather("who", bytes_of(std::to_string(rank)), Deadline::after(20s));
    ASSERT_TRUE(parts) << parts.error().message();
    for (int other = 0; other < members; ++other)
      EXPECT_EQ(text_of((*parts)[static_cast<std::size_t>(other)]), std::to_string(2 * other + rank % 2));
    // The whole goes on beside it.
    EXPECT_TRUE(group.all_gather("all", {}, Deadline::after(20s)));
    EXPECT_EQ(group.control_bytes() > 0, group.world_size() > 1);
    ASSERT_TRUE(site.leave(Deadline::after(20s)));
  });
}

TEST_P(GroupInThreads, all_gather_carries_nothing_and_a_mebibyte) {
  run_members(groups_, [](Group& group, int rank) {
    auto const none = group.all_gather("none", {}, Deadline::after(20s));
    ASSERT_TRUE(none) << none.error().message();
    EXPECT_TRUE(none->back().empty());
    std::vector<std::byte> const big(std::size_t{1} << 20, static_cast<std::byte>(rank));
    auto const parts = group.all_gather("big", big, Deadline::after(20s));
    ASSERT_TRUE(parts) << parts.error().message();
    EXPECT_EQ(parts->front(), std::vector<std::byte>(big.size(), std::byte{0}));
    EXPECT_THROW((void)group.all_gather("bigger", std::vector<std::byte>(big.size() + 1), Deadline::now()), Error);
  });
}

TEST_P(GroupInThreads, agree_accepts_equal_fields) {
  run_members(groups_, [](Group& group, int) {
    for (int turn = 0; turn < 3; ++turn) {
      auto const agreed = group.agree("model", {{"layers", "3"}, {"dtype", "fp32"}}, Deadline::after(20s));
      EXPECT_TRUE(agreed) << agreed.error().message();
    }
  });
}

TEST_P(GroupInThreads, rounds_over_messages_commit_at_all_members) {
  run_members(groups_, [](Group& group, int) {
    auto& rounds = group.rounds();
    auto const stream = rounds.open_stream("gradients");
    for (std::uint64_t number = 1; number <= 30; ++number) {
      RoundId const round{stream, number};
      EXPECT_FALSE(*rounds.is_committed(round));
      ASSERT_TRUE(rounds.hold(round, {number, 7}));
      auto const deadline = Deadline::after(20s);
      auto committed = rounds.is_committed(round);
      for (; committed && !*committed && !deadline.has_passed(); committed = rounds.is_committed(round))
        std::this_thread::yield();
      ASSERT_TRUE(committed) << committed.error().message();
      ASSERT_TRUE(*committed);
    }
  });
}

TEST_P(GroupInThreads, rounds_announced_by_a_fabric_commit_without_messages) {
  auto const ranks = static_cast<std::size_t>(GetParam());
  std::vector<std::atomic<std::uint64_t>> words(ranks);  // What a shared-memory fabric would keep.
  run_members(groups_, [&](Group& group, int rank) {
    auto& rounds = group.rounds();
    auto const stream = rounds.open_stream("gradients");
    for (std::uint64_t number = 1; number <= 200; ++number) {
      RoundId const round{stream, number};
      ASSERT_TRUE(rounds.hold(round, {number, 0}, [&] { words[static_cast<std::size_t>(rank)] = number; }));
      auto const deadline = Deadline::after(20s);
      while (!*rounds.is_committed(round) && !deadline.has_passed()) {
        for (int other = 0; other < group.world_size(); ++other)
          if (other != rank && words[static_cast<std::size_t>(other)] >= number)
            rounds.count_ready(group.view().id, round, other, {number, 0});
        std::this_thread::yield();
      }
      ASSERT_TRUE(*rounds.is_committed(round));
    }
  });
}

TEST_P(GroupInThreads, leaving_one_after_the_other_is_no_failure) {
  run_members(groups_, [](Group& group, int) {
    ASSERT_TRUE(group.all_gather("before", {}, Deadline::after(20s)));
    auto const left = group.leave(Deadline::after(10s));
    EXPECT_TRUE(left) << left.error().message();
    EXPECT_TRUE(group.leave(Deadline::after(10s)));
    EXPECT_FALSE(group.failure());
  });
}

INSTANTIATE_TEST_SUITE_P(Members, GroupInThreads, ::testing::Values(1, 2, 3, 7));

class Group3 : public ::testing::Test {
 protected:
  void SetUp() override { set_log_level("off"); }
  std::vector<Group> groups_ = Group::in_threads(3, ending_config());
};

TEST_F(Group3, agree_names_the_first_differing_member_field_and_values_everywhere) {
  std::vector<std::string> messages(3);
  run_members(groups_, [&](Group& group, int rank) {
    Group::Fields fields{
        {"layers", "3"}, {"weight", rank == 0 ? "[10, 4]" : "[10, 5]"}, {"bias", std::to_string(rank)}};
    auto const agreed = group.agree("model", fields, Deadline::after(20s));
    ASSERT_FALSE(agreed);
    EXPECT_EQ(agreed.error().code, Errc::mismatch);
    EXPECT_EQ(agreed.error().failed_members, std::vector{MemberId{1}});
    messages[static_cast<std::size_t>(rank)] = agreed.error().message();
  });
  EXPECT_THAT(messages[0], HasSubstr("rank 1"));
  EXPECT_THAT(messages[0], HasSubstr("weight = [10, 5]"));
  EXPECT_THAT(messages[0], HasSubstr("weight = [10, 4]"));
  EXPECT_EQ(messages[0], messages[1]);
  EXPECT_EQ(messages[0], messages[2]);
}

TEST_F(Group3, agree_notices_a_missing_field) {
  run_members(groups_, [&](Group& group, int rank) {
    Group::Fields fields{{"a", "1"}};
    if (rank == 2) fields.clear();
    auto const agreed = group.agree("model", fields, Deadline::after(20s));
    ASSERT_FALSE(agreed);
    EXPECT_THAT(agreed.error().detail, HasSubstr("rank 2"));
    EXPECT_THAT(agreed.error().detail, HasSubstr("nothing"));
  });
}

TEST_F(Group3, other_digest_ends_the_view_as_diverged_at_all) {
  // Whoever counts the differing READY words the message, and knows the stream's name only once it opened it.
  for (auto& group : groups_) (void)group.rounds().open_stream("gradients");
  run_members(groups_, [&](Group& group, int rank) {
    auto& rounds = group.rounds();
    RoundId const round{rounds.open_stream("gradients"), 1};
    (void)rounds.hold(round, {rank == 1 ? 5U : 4U, 0});
    auto const deadline = Deadline::after(20s);
    auto committed = rounds.is_committed(round);
    while (committed && !*committed && !deadline.has_passed()) committed = rounds.is_committed(round);
    ASSERT_FALSE(committed);
    EXPECT_EQ(committed.error().code, Errc::diverged);
    EXPECT_THAT(committed.error().message(), HasSubstr("round 1 on stream gradients"));
  });
}

TEST_F(Group3, all_gather_is_pending_at_its_deadline_and_taken_up_again) {
  auto const early = groups_[0].all_gather("late", bytes_of("a"), Deadline::after(30ms));
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, Errc::pending);
  EXPECT_THAT(early.error().message(), HasSubstr("rank 1"));
  EXPECT_THAT(early.error().message(), HasSubstr("rank 2"));
  EXPECT_THROW((void)groups_[0].all_gather("late", bytes_of("other"), Deadline::now()), Error);
  run_members(groups_, [](Group& group, int rank) {
    auto const parts =
        group.all_gather("late", bytes_of(std::string(1, static_cast<char>('a' + rank))), Deadline::after(20s));
    ASSERT_TRUE(parts) << parts.error().message();
    EXPECT_EQ(text_of(parts->front()), "a");
  });
}

TEST_F(Group3, what_needs_a_member_that_left_fails_and_names_it) {
  ASSERT_TRUE(groups_[2].leave(Deadline::after(10s)));
  auto const parts = groups_[0].all_gather("after", {}, Deadline::after(20s));
  ASSERT_FALSE(parts);
  EXPECT_EQ(parts.error().code, Errc::member_left);
  EXPECT_EQ(parts.error().failed_members, std::vector{MemberId{2}});
  auto& rounds = groups_[0].rounds();
  auto const held = rounds.hold({rounds.open_stream("gradients"), 1}, {});
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, Errc::member_left);
  EXPECT_FALSE(groups_[0].failure());
}

TEST_F(Group3, round_announced_in_memory_before_leaving_still_commits_elsewhere) {
  for (auto& group : groups_) {
    auto& rounds = group.rounds();
    ASSERT_TRUE(rounds.hold({rounds.open_stream("gradients"), 1}, {1, 1}, [] {}));
  }
  auto& rounds = groups_[0].rounds();
  RoundId const round{rounds.open_stream("gradients"), 1};
  ASSERT_TRUE(groups_[2].leave(Deadline::after(10s)));
  EXPECT_FALSE(*rounds.is_committed(round));
  rounds.count_ready(groups_[0].view().id, round, 1, {1, 1});
  EXPECT_TRUE(*rounds.is_committed(round));
}

TEST_F(Group3, suspect_fails_everybody_with_the_same_failure) {
  groups_[1].report_progress(Activity::computing);
  groups_[0].suspect(1, "no data from rank 1 for 3 s in aggregate #4");
  for (auto& group : groups_) {
    auto const deadline = Deadline::after(20s);
    while (!group.failure() && !deadline.has_passed()) std::this_thread::yield();
    ASSERT_TRUE(group.failure());
    EXPECT_EQ(group.failure()->code, group.rank() == 1 ? Errc::evicted : Errc::member_lost);
    EXPECT_EQ(group.failure()->failed_members, std::vector{MemberId{1}});
    EXPECT_THAT(group.failure()->message(), HasSubstr("aggregate #4"));
  }
}

TEST_F(Group3, listeners_hear_of_a_failure_and_are_silent_once_removed) {
  std::atomic<int> heard{0};
  int const key = 0;
  groups_[2].rounds().set_listener(&key, [&] { ++heard; });
  groups_[0].suspect(1, "evidence");
  auto const deadline = Deadline::after(20s);
  while (heard == 0 && !deadline.has_passed()) std::this_thread::yield();
  EXPECT_GE(heard, 1);
  groups_[2].rounds().set_listener(&key, {});
}

TEST_F(Group3, destructor_returns_soon_although_another_member_stays) {
  auto const began = Deadline::Clock::now();
  groups_.pop_back();
  EXPECT_LT(Deadline::Clock::now() - began, 900ms);
}

TEST(Group, refuses_to_hold_rounds_out_of_order) {
  auto group = Group::in_threads(1).front();
  auto& rounds = group.rounds();
  auto const stream = rounds.open_stream("gradients");
  EXPECT_THROW((void)rounds.hold({stream, 2}, {}), Error);
  EXPECT_TRUE(rounds.hold({stream, 1}, {}));
  EXPECT_THROW((void)rounds.hold({stream, 1}, {}), Error);
  EXPECT_TRUE(*rounds.is_committed({stream, 1}));
}

TEST(Group, stream_ids_depend_on_names_alone) {
  auto groups = Group::in_threads(2);
  auto const a = groups[0].rounds().open_stream("a");
  auto const b = groups[0].rounds().open_stream("b");
  EXPECT_EQ(groups[1].rounds().open_stream("b"), b);
  EXPECT_EQ(groups[1].rounds().open_stream("a"), a);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace holdfast
