#include <set>

#include <gtest/gtest.h>
#include <protocol/who_leaves.hpp>

namespace holdfast::protocol {
namespace {

constexpr MemberId a{0}, b{1}, c{2}, d{3};

/// Members left over when these links are lost in the direction that they are given in.
MemberSet left(MemberSet members, std::set<std::pair<MemberId, MemberId>> lost) {
  return without_lost_links(std::move(members), [&](MemberId from, MemberId to) { return lost.contains({from, to}); });
}

TEST(WhoLeaves, nobody_while_everybody_hears_everybody) {
  EXPECT_EQ(left({a, b, c}, {}), MemberSet({a, b, c}));
}

TEST(WhoLeaves, the_higher_of_two_that_do_not_hear_each_other) {
  EXPECT_EQ(left({a, b, c}, {{b, c}}), MemberSet({a, b}));
  EXPECT_EQ(left({a, b, c}, {{c, b}}), MemberSet({a, b})) << "either direction counts";
}

TEST(WhoLeaves, the_one_with_most_lost_links) {
  EXPECT_EQ(left({a, b, c, d}, {{b, c}, {b, d}}), MemberSet({a, c, d}));
}

TEST(WhoLeaves, the_one_that_asks_too) {
  EXPECT_EQ(left({a, b, c}, {{b, a}, {c, a}}), MemberSet({b, c}));
}

TEST(WhoLeaves, as_few_as_it_takes_one_after_another) {
  EXPECT_EQ(left({a, b, c, d}, {{a, b}, {c, d}}), MemberSet({a, c}));
}

}  // namespace
}  // namespace holdfast::protocol
