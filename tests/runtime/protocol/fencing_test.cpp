#include <gtest/gtest.h>
#include <protocol/fencing.hpp>

namespace holdfast::protocol {
namespace {

constexpr MemberId a{0}, b{1}, c{2};

class Fencing : public testing::Test {
 protected:
  Fencing() { arbiter_.note_view(ViewId{1}, {a, b, c}); }
  void request(MemberId requester, MemberId suspect, std::uint64_t view = 1,
               std::vector<MemberId> members = {a, b, c}) {
    arbiter_.request({ViewId{view}, std::move(members), requester, suspect});
  }
  FencingArbiter arbiter_;
};

TEST_F(Fencing, grants_a_request) {
  request(a, b);
  EXPECT_EQ(arbiter_.decide(), b);
}

TEST_F(Fencing, may_end_the_coordinator) {
  request(b, a);
  EXPECT_EQ(arbiter_.decide(), a);
}

TEST_F(Fencing, grants_one_at_a_time) {
  request(a, b);
  ASSERT_EQ(arbiter_.decide(), b);
  request(a, c);
  EXPECT_FALSE(arbiter_.decide()) << "the end of the first was not seen yet";
  EXPECT_EQ(arbiter_.on_ended(b), std::vector{b});
  request(a, c);
  EXPECT_EQ(arbiter_.decide(), c);
}

TEST_F(Fencing, drops_every_request_at_each_decision) {
  request(a, b);
  request(a, c);
  ASSERT_EQ(arbiter_.decide(), b);
  (void)arbiter_.on_ended(b);
  EXPECT_FALSE(arbiter_.decide()) << "who still needs one repeats it";
}

TEST_F(Fencing, certifies_only_an_end_that_was_seen_and_only_once) {
  request(a, b);
  (void)arbiter_.decide();
  EXPECT_TRUE(arbiter_.on_ended(c) == std::vector{c}) << "one that died by itself";
  EXPECT_EQ(arbiter_.on_ended(b), std::vector{b});
  EXPECT_TRUE(arbiter_.on_ended(b).empty());
}

TEST_F(Fencing, hears_no_fenced_and_no_dead_member) {
  request(a, b);
  (void)arbiter_.decide();
  (void)arbiter_.on_ended(b);
  request(b, a);
  EXPECT_FALSE(arbiter_.decide());
}

TEST_F(Fencing, never_ends_the_last_one) {
  (void)arbiter_.on_ended(b);
  (void)arbiter_.on_ended(c);
  request(a, a);
  EXPECT_FALSE(arbiter_.decide());
}

TEST_F(Fencing, ignores_requests_of_an_older_view) {
  arbiter_.note_view(ViewId{2}, {a, b});
  request(c, a, 1);
  EXPECT_FALSE(arbiter_.decide());
}

TEST_F(Fencing, learns_the_newest_view_from_a_request) {
  request(a, b, 2, {a, b});
  request(c, a, 2, {a, b});
  EXPECT_EQ(arbiter_.decide(), b) << "who is not in that view has no say";
}

TEST_F(Fencing, does_not_know_strangers) {
  request(a, MemberId{9});
  request(MemberId{9}, a);
  EXPECT_FALSE(arbiter_.decide());
}

}  // namespace
}  // namespace holdfast::protocol
