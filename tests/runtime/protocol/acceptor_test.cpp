#include <gtest/gtest.h>
#include <protocol/acceptor.hpp>

namespace holdfast::protocol {
namespace {

constexpr Ballot kLow{1, MemberId{0}}, kSame{1, MemberId{1}}, kHigh{2, MemberId{0}};

Value value_of(std::uint64_t seed) {
  Value value;
  value.number = ViewId{2};
  value.seed = seed;
  return value;
}

TEST(Acceptor, promises_to_no_older_ballot) {
  Acceptor acceptor;
  EXPECT_TRUE(acceptor.promise(kHigh));
  EXPECT_FALSE(acceptor.promise(kLow));
  EXPECT_EQ(acceptor.promised(), kHigh);
}

TEST(Acceptor, orders_ballots_of_one_number_by_proposer) {
  Acceptor acceptor;
  EXPECT_TRUE(acceptor.promise(kSame));
  EXPECT_FALSE(acceptor.promise(kLow));
}

TEST(Acceptor, repeats_its_newest_promise) {
  Acceptor acceptor;
  EXPECT_TRUE(acceptor.promise(kHigh));
  EXPECT_TRUE(acceptor.promise(kHigh));
}

TEST(Acceptor, is_frozen_from_the_first_promise_on) {
  Acceptor acceptor;
  EXPECT_FALSE(acceptor.is_frozen());
  (void)acceptor.promise(kLow);
  EXPECT_TRUE(acceptor.is_frozen());
}

TEST(Acceptor, is_frozen_by_an_accept_without_a_promise) {
  Acceptor acceptor;
  EXPECT_TRUE(acceptor.accept(kLow, value_of(1)));
  EXPECT_TRUE(acceptor.is_frozen());
}

TEST(Acceptor, accepts_nothing_older_than_its_promise) {
  Acceptor acceptor;
  (void)acceptor.promise(kHigh);
  EXPECT_FALSE(acceptor.accept(kLow, value_of(1)));
  EXPECT_FALSE(acceptor.accepted());
}

TEST(Acceptor, keeps_the_value_of_the_highest_ballot) {
  Acceptor acceptor;
  EXPECT_TRUE(acceptor.accept(kLow, value_of(1)));
  EXPECT_TRUE(acceptor.accept(kHigh, value_of(2)));
  EXPECT_EQ(acceptor.accepted_ballot(), kHigh);
  EXPECT_EQ(acceptor.accepted()->seed, 2U);
}

TEST(Acceptor, keeps_what_it_accepted_through_later_promises) {
  Acceptor acceptor;
  (void)acceptor.accept(kLow, value_of(1));
  (void)acceptor.promise(kHigh);
  EXPECT_EQ(acceptor.accepted_ballot(), kLow);
  EXPECT_EQ(acceptor.accepted()->seed, 1U);
}

}  // namespace
}  // namespace holdfast::protocol
