#include <gtest/gtest.h>
#include <protocol/verdict.hpp>

namespace holdfast::protocol {
namespace {

constexpr MemberId a{0}, b{1}, c{2};
constexpr StreamId kStream{7}, kOther{8};
constexpr Digest kFifth{5, 5}, kSixth{6, 6}, kForged{9, 9};

StreamReport held(std::uint64_t committed, std::uint64_t held, Digest committed_digest = kFifth,
                  Digest held_digest = kSixth) {
  return {kStream, committed, held, committed_digest, held == committed ? committed_digest : held_digest};
}

StreamVerdict verdict(Reports const& reports, MemberSet const& stayers = {a, b, c}, bool hands_over = false) {
  auto const verdicts = resolve(reports, stayers, hands_over);
  EXPECT_TRUE(verdicts);
  return verdicts->at(0);
}

TEST(Verdict, commits_what_one_promiser_committed) {
  auto const result = verdict({{a, {held(6, 6, kSixth)}}, {b, {held(5, 6)}}});
  EXPECT_EQ(result.committed, 6U);
  EXPECT_EQ(result.digest, kSixth);
}

TEST(Verdict, commits_what_all_promisers_hold) {
  EXPECT_EQ(verdict({{a, {held(5, 6)}}, {b, {held(5, 6)}}, {c, {held(5, 6)}}}).committed, 6U);
}

TEST(Verdict, redoes_what_one_promiser_lacks) {
  EXPECT_EQ(verdict({{a, {held(5, 6)}}, {b, {held(5, 6)}}, {c, {held(5, 5)}}}).committed, 5U);
}

TEST(Verdict, counts_promisers_that_do_not_stay) {
  EXPECT_EQ(verdict({{a, {held(5, 6)}}, {b, {held(5, 6)}}, {c, {held(5, 5)}}}, {a, b}).committed, 5U);
  EXPECT_EQ(verdict({{a, {held(5, 6)}}, {b, {held(6, 6, kSixth)}}}, {a}).committed, 6U);
}

TEST(Verdict, takes_a_stream_that_a_promiser_does_not_know_for_round_0) {
  Reports const reports{{a, {{kStream, 0, 1, {}, kFifth}, {kOther, 0, 1, {}, kSixth}}},
                        {b, {{kStream, 0, 1, {}, kFifth}}}};
  auto const verdicts = resolve(reports, {a, b}, false);
  ASSERT_TRUE(verdicts);
  ASSERT_EQ(verdicts->size(), 2U);
  EXPECT_EQ((*verdicts)[0].committed, 1U);
  EXPECT_EQ((*verdicts)[1].committed, 0U);
}

TEST(Verdict, names_stayers_that_hold_the_next_result) {
  Reports const reports{{a, {held(5, 6)}}, {b, {held(5, 5)}}, {c, {held(5, 6)}}};
  auto const result = verdict(reports, {a, b}, true);
  EXPECT_EQ(result.holders, std::vector{a});
  EXPECT_EQ(result.held, kSixth);
  EXPECT_TRUE(verdict(reports, {b}, true).holders.empty()) << "nobody that stays has it";
  EXPECT_TRUE(verdict(reports, {a, b, c}, false).holders.empty()) << "results are not handed over";
}

TEST(Verdict, fails_on_two_results_of_one_round) {
  auto const held_twice = resolve({{a, {held(5, 6)}}, {b, {held(5, 6, kFifth, kForged)}}}, {a, b}, false);
  ASSERT_FALSE(held_twice);
  EXPECT_EQ(held_twice.error().code, Errc::diverged);
  EXPECT_EQ(held_twice.error().failed_members, (std::vector{a, b}));
  EXPECT_FALSE(resolve({{a, {held(5, 5)}}, {b, {held(5, 5, kForged)}}}, {a, b}, false));
  EXPECT_FALSE(resolve({{a, {held(6, 6, kSixth)}}, {b, {held(5, 6, kFifth, kForged)}}}, {a, b}, false));
}

}  // namespace
}  // namespace holdfast::protocol
