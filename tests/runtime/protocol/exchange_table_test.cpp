#include <gtest/gtest.h>
#include <protocol/exchange_table.hpp>

#include <holdfast/runtime/error.hpp>

namespace holdfast::protocol {
namespace {

using Counted = ExchangeTable::Counted;

ExchangeTable::Bytes bytes(int value) {
  return {static_cast<std::byte>(value)};
}

TEST(ExchangeTable, is_complete_with_every_part_and_begins_anew) {
  ExchangeTable table(2, 0);
  for (std::uint64_t sequence = 1; sequence <= 3; ++sequence) {
    EXPECT_EQ(table.contribute("key", bytes(1)), sequence);
    EXPECT_FALSE(table.take("key"));
    EXPECT_EQ(table.receive(1, "key", sequence, bytes(2)), Counted::complete);
    EXPECT_EQ(table.take("key"), (std::vector{bytes(1), bytes(2)}));
    EXPECT_FALSE(table.take("key"));
  }
}

TEST(ExchangeTable, keeps_the_part_of_a_member_that_is_one_ahead) {
  ExchangeTable table(2, 0);
  (void)table.contribute("key", bytes(1));
  EXPECT_EQ(table.receive(1, "key", 1, bytes(2)), Counted::complete);
  EXPECT_EQ(table.receive(1, "key", 2, bytes(3)), Counted::counted);
  EXPECT_EQ(table.receive(1, "key", 3, bytes(4)), Counted::out_of_order);
  EXPECT_EQ(table.take("key"), (std::vector{bytes(1), bytes(2)}));
  EXPECT_EQ(table.contribute("key", bytes(5)), 2U);
  EXPECT_EQ(table.take("key"), (std::vector{bytes(5), bytes(3)}));
}

TEST(ExchangeTable, ignores_what_it_has) {
  ExchangeTable table(3, 0);
  EXPECT_EQ(table.receive(1, "key", 1, bytes(2)), Counted::counted);
  EXPECT_EQ(table.receive(1, "key", 1, bytes(9)), Counted::repeated);
  EXPECT_EQ(table.receive(2, "key", 1, bytes(3)), Counted::counted);
  EXPECT_EQ(table.contribute("key", bytes(1)), 1U);
  EXPECT_EQ(table.take("key"), (std::vector{bytes(1), bytes(2), bytes(3)}));
  EXPECT_EQ(table.receive(1, "key", 1, bytes(2)), Counted::repeated);
}

TEST(ExchangeTable, sends_a_pending_part_once_and_refuses_another) {
  ExchangeTable table(2, 0);
  EXPECT_TRUE(table.contribute("key", bytes(1)));
  EXPECT_FALSE(table.contribute("key", bytes(1)));
  EXPECT_THROW((void)table.contribute("key", bytes(2)), Error);
}

}  // namespace
}  // namespace holdfast::protocol
