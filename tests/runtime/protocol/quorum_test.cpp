#include <gtest/gtest.h>
#include <protocol/quorum.hpp>

namespace holdfast::protocol {
namespace {

constexpr MemberId a{0}, b{1}, c{2}, d{3}, e{4};

Electorate electorate(MemberSet members, QuorumRule rule = QuorumRule::majority,
                      std::optional<MemberId> tie_breaker = {}) {
  return {std::move(members), rule, tie_breaker};
}

MemberSet subset(std::vector<MemberId> const& members, unsigned bits) {
  MemberSet set;
  for (std::size_t i = 0; i < members.size(); ++i)
    if ((bits >> i & 1U) != 0) set.insert(members[i]);
  return set;
}

TEST(MajorityQuorum, is_more_than_half_of_the_votes) {
  EXPECT_TRUE(is_quorum(electorate({a, b, c}), {a, b}, {}));
  EXPECT_FALSE(is_quorum(electorate({a, b, c}), {a}, {}));
}

TEST(MajorityQuorum, is_not_exactly_half) {
  EXPECT_FALSE(is_quorum(electorate({a, b, c, d}), {a, b}, {}));
  EXPECT_FALSE(is_quorum(electorate({a, b}), {a}, {}));
}

TEST(MajorityQuorum, is_exactly_half_when_the_other_half_is_certified) {
  EXPECT_TRUE(is_quorum(electorate({a, b, c, d}), {a, b}, {c, d}));
  EXPECT_TRUE(is_quorum(electorate({a, b}), {a}, {b}));
  EXPECT_FALSE(is_quorum(electorate({a, b, c, d}), {a, b}, {c})) << "one of the others may still decide";
}

TEST(MajorityQuorum, is_not_less_than_half_however_many_are_certified) {
  EXPECT_FALSE(is_quorum(electorate({a, b, c}), {a}, {b, c}));
  EXPECT_FALSE(is_quorum(electorate({a, b, c, d, e}), {a, b}, {c, d, e}));
}

TEST(MajorityQuorum, is_half_with_the_tie_breaker) {
  EXPECT_TRUE(is_quorum(electorate({a, b, c, d}, QuorumRule::majority, a), {a, b}, {}));
  EXPECT_FALSE(is_quorum(electorate({a, b, c, d}, QuorumRule::majority, a), {c, d}, {}));
  EXPECT_TRUE(is_quorum(electorate({a, b}, QuorumRule::majority, a), {a}, {}));
}

TEST(MajorityQuorum, is_out_of_reach_for_the_other_of_two_when_the_tie_breaker_died) {
  EXPECT_FALSE(is_quorum(electorate({a, b}, QuorumRule::majority, a), {b}, {}));
  EXPECT_FALSE(is_quorum(electorate({a, b}, QuorumRule::majority, a), {b}, {a}))
      << "the dead one held most of the votes";
}

TEST(MajorityQuorum, counts_members_of_the_view_only) {
  EXPECT_FALSE(is_quorum(electorate({a, b, c}), {a, d, e}, {}));
}

TEST(CertifiedQuorum, is_everybody_without_a_certificate) {
  auto const all = electorate({a, b, c}, QuorumRule::certified);
  EXPECT_TRUE(is_quorum(all, {a, b, c}, {}));
  EXPECT_FALSE(is_quorum(all, {a, b}, {})) << "a majority is nothing under this rule";
  EXPECT_TRUE(is_quorum(all, {a}, {b, c})) << "there is no cap";
}

TEST(CertifiedQuorum, is_not_nobody) {
  EXPECT_FALSE(is_quorum(electorate({a, b}, QuorumRule::certified), {}, {a, b}));
}

TEST(Quorum, two_of_one_view_always_share_a_member) {
  // Certificates only grow, and nobody answers once its end was observed: with the certificates at both times, the two
  // sets of members that answered must meet, else two values could be decided.
  std::vector<MemberId> const members{a, b, c, d, e};
  for (std::size_t size = 1; size <= members.size(); ++size) {
    std::vector<MemberId> const view(members.begin(), members.begin() + static_cast<std::ptrdiff_t>(size));
    for (int const tie : {-1, 0}) {
      auto const all =
          electorate(MemberSet(view), QuorumRule::majority, tie == 0 ? std::optional(a) : std::optional<MemberId>());
      unsigned const end = 1U << size;
      for (unsigned first = 0; first < end; ++first)
        for (unsigned second = 0; second < end; ++second) {
          if ((first & second) != 0) continue;
          // At worst everybody who did not answer is certified.
          bool const both = is_quorum(all, subset(view, first), subset(view, end - 1 - first)) &&
                            is_quorum(all, subset(view, second), subset(view, (end - 1 - second) & ~first));
          EXPECT_FALSE(both) << size << " members, " << first << " and " << second << ", tie breaker " << tie;
        }
    }
  }
}

}  // namespace
}  // namespace holdfast::protocol
