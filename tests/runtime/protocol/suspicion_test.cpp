#include <gtest/gtest.h>
#include <protocol/suspicion.hpp>

namespace holdfast::protocol {
namespace {

using namespace std::chrono_literals;

constexpr MemberId a{0}, b{1}, c{2};

/// What member b believes, of a, b and c.
class Suspicion : public testing::Test {
 protected:
  Suspicion() { begin(QuorumRule::majority); }
  void begin(QuorumRule rule) { table_.begin_view(ViewId{1}, {{a, b, c}, rule, {}}); }
  /// Periods pass in which these are heard.
  MemberSet pass(int periods, MemberSet const& heard) {
    MemberSet news;
    for (int i = 0; i < periods; ++i) {
      for (auto const member : heard) table_.heard(member);
      now_ += 50ms;
      table_.tick(now_);
      for (auto const member : table_.refresh(now_)) news.insert(member);
    }
    return news;
  }
  void says(MemberId member, MemberSet suspects, bool is_blocked = false) {
    Heartbeat beat;
    beat.view = ViewId{1};
    beat.sequence = ++sequence_;
    beat.suspects = std::move(suspects);
    beat.is_blocked = is_blocked;
    table_.note(member, beat);
    (void)table_.refresh(now_);
  }
  SuspicionTable table_{b, 50ms, 500ms};
  action::Instant now_{1h};
  std::uint64_t sequence_ = 0;
};

TEST_F(Suspicion, needs_the_whole_timeout_of_silence) {
  pass(1, {a, c});
  EXPECT_TRUE(pass(10, {c}).empty());
  EXPECT_EQ(pass(2, {c}), MemberSet({a}));
}

TEST_F(Suspicion, is_withdrawn_by_any_word_and_doubles_the_patience) {
  pass(1, {a, c});
  ASSERT_EQ(pass(12, {c}), MemberSet({a}));
  pass(1, {a, c});
  EXPECT_TRUE(table_.suspects().empty());
  EXPECT_TRUE(pass(19, {c}).empty()) << "twice as long now";
  EXPECT_EQ(pass(3, {c}), MemberSet({a}));
}

TEST_F(Suspicion, patience_grows_to_eight_times_and_no_further) {
  for (int round = 0; round < 10; ++round) {
    pass(1, {a, c});
    pass(90, {c});
  }
  pass(1, {a, c});
  EXPECT_TRUE(pass(79, {c}).empty());
  EXPECT_EQ(pass(3, {c}), MemberSet({a}));
}

TEST_F(Suspicion, is_nobodys_when_the_own_timer_was_late) {
  pass(1, {a, c});
  now_ += 10s;
  table_.tick(now_);
  EXPECT_TRUE(table_.refresh(now_).empty());
}

TEST_F(Suspicion, by_a_broken_connection_is_withdrawn_when_it_is_back) {
  table_.broken(a, "reset");
  EXPECT_EQ(table_.refresh(now_), MemberSet({a}));
  pass(1, {a, c});
  EXPECT_TRUE(table_.suspects().empty());
}

TEST_F(Suspicion, by_the_data_plane_stands_though_the_member_answers) {
  table_.accuse(c, "waits in vain", now_ + 1s);
  pass(10, {a, c});
  EXPECT_TRUE(table_.suspects().contains(c));
  pass(11, {a, c});
  EXPECT_FALSE(table_.suspects().contains(c));
}

TEST_F(Suspicion, by_a_certificate_stands_for_ever) {
  EXPECT_TRUE(table_.certify(a, "seen to end"));
  EXPECT_FALSE(table_.certify(a, "seen to end"));
  pass(5, {a, c});
  EXPECT_TRUE(table_.suspects().contains(a));
  table_.begin_view(ViewId{2}, {{a, b, c}, QuorumRule::majority, {}});
  EXPECT_TRUE(table_.certified().contains(a)) << "in the next view too";
}

TEST_F(Suspicion, ignores_a_heartbeat_older_than_the_last) {
  Heartbeat old;
  old.sequence = 1;
  old.suspects = {b};
  Heartbeat next;
  next.sequence = 2;
  EXPECT_TRUE(table_.note(a, next));
  EXPECT_FALSE(table_.note(a, old));
  EXPECT_FALSE(table_.is_link_lost(a, b));
}

TEST_F(Suspicion, blocks_a_member_that_hears_no_quorum_that_hears_it) {
  says(a, {b});
  EXPECT_FALSE(table_.is_blocked());
  says(c, {b});
  EXPECT_TRUE(table_.is_blocked());
}

TEST_F(Suspicion, blocks_nobody_under_the_certified_rule) {
  begin(QuorumRule::certified);
  says(a, {b});
  says(c, {b});
  EXPECT_FALSE(table_.is_blocked());
}

TEST_F(Suspicion, lets_the_lowest_rank_that_is_not_out_lead) {
  (void)table_.refresh(now_);
  EXPECT_TRUE(table_.may_lead(a));
  EXPECT_FALSE(table_.may_lead(b));
  says(a, {}, true);
  EXPECT_TRUE(table_.may_lead(b)) << "a says that it is blocked";
  says(a, {}, false);
  table_.broken(a, "reset");
  (void)table_.refresh(now_);
  EXPECT_TRUE(table_.may_lead(b)) << "a is suspected";
  EXPECT_FALSE(table_.may_lead(c)) << "b is not out in its own eyes";
}

TEST_F(Suspicion, promises_to_nobody_that_is_suspected_or_blocked_the_coordinator_neither) {
  EXPECT_TRUE(table_.may_promise_to(a));
  EXPECT_FALSE(table_.may_promise_to(c)) << "a is not out";
  says(a, {}, true);
  EXPECT_FALSE(table_.may_promise_to(a));
  says(a, {}, false);
  table_.broken(a, "reset");
  (void)table_.refresh(now_);
  EXPECT_FALSE(table_.may_promise_to(a));
}

}  // namespace
}  // namespace holdfast::protocol
