#include <gtest/gtest.h>
#include <protocol/gathers.hpp>

namespace holdfast::protocol {
namespace {

using Bytes = GatherTable::Bytes;
constexpr MemberId kSelf{0};
constexpr MemberId kOther{1};
Bytes const kOld{std::byte{1}};
Bytes const kNew{std::byte{2}};

MemberSet both() {
  MemberSet members;
  members.insert(kSelf);
  members.insert(kOther);
  return members;
}

class Gathers : public testing::Test {
 protected:
  Gathers() { (void)table_.begin_view(both()); }
  GatherTable table_{kSelf, [](StreamId) { return std::uint64_t{0}; }};
};

TEST_F(Gathers, open_exchange_begins_anew_with_the_view) {
  EXPECT_EQ(table_.contribute("key", kOld), 1U);
  auto const again = table_.begin_view(both());
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again.front().bytes, kOld);
  EXPECT_THROW((void)table_.contribute("key", kNew), std::exception);
}

TEST_F(Gathers, exchange_of_one_view_is_forgotten_with_it) {
  EXPECT_EQ(table_.contribute("key", kOld, true), 1U);
  EXPECT_TRUE(table_.begin_view(both()).empty());
  EXPECT_EQ(table_.contribute("key", kNew, true), 1U);
  EXPECT_EQ(table_.receive(kOther, "key", 1, kOld), GatherTable::Counted::counted);
  EXPECT_TRUE(table_.complete("key"));
}

TEST_F(Gathers, parts_of_an_exchange_that_ended_with_its_view_are_not_taken_in_the_next) {
  EXPECT_EQ(table_.contribute("key", kOld, true), 1U);
  EXPECT_EQ(table_.receive(kOther, "key", 1, kOld), GatherTable::Counted::counted);
  EXPECT_EQ(table_.commit(GatherTable::stream_of("key")), "key");
  (void)table_.begin_view(both());
  EXPECT_FALSE(table_.take("key"));
  EXPECT_EQ(table_.contribute("key", kNew, true), 2U);
}

}  // namespace
}  // namespace holdfast::protocol
