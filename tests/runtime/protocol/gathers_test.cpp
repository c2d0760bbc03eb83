#include <gtest/gtest.h>
#include <protocol/gathers.hpp>

namespace holdfast::protocol {
namespace {

using Bytes = GatherTable::Bytes;
constexpr MemberId kSelf{0};
constexpr MemberId kOther{1};
Bytes const kOld{std::byte{1}};
Bytes const kNew{std::byte{2}};

class Gathers : public testing::Test {
 protected:
  Gathers() { (void)table_.begin_view({kSelf, kOther}); }
  /// Both give a part, and the exchange is committed.
  void exchange(std::string const& name) {
    auto const sequence = table_.contribute(name, kOld);
    ASSERT_TRUE(sequence);
    ASSERT_EQ(table_.receive(kOther, name, *sequence, kOld), GatherTable::Counted::counted);
    ASSERT_TRUE(table_.complete(name));
    auto const stream = GatherTable::stream_of(name);
    committed_[stream] = *sequence;
    ASSERT_EQ(table_.commit(stream), name);
  }
  void begin_view() {
    // What is of one view has no verdict.
    std::erase_if(committed_, [](auto const& entry) { return is_of_one_view(entry.first); });
    again_ = table_.begin_view({kSelf, kOther});
  }

  std::string const name_ = GatherTable::name_of("key", false);
  std::string const of_view_ = GatherTable::name_of("key", true);
  std::map<StreamId, std::uint64_t> committed_;
  GatherTable table_{kSelf, [this](StreamId stream) { return committed_.contains(stream) ? committed_[stream] : 0; }};
  std::vector<GatherTable::Part> again_;
};

TEST_F(Gathers, tell_streams_of_one_view_from_others) {
  EXPECT_TRUE(is_exchange(GatherTable::stream_of(name_)));
  EXPECT_FALSE(is_of_one_view(GatherTable::stream_of(name_)));
  EXPECT_TRUE(is_of_one_view(GatherTable::stream_of(of_view_)));
}

TEST_F(Gathers, open_exchange_begins_anew_with_the_view) {
  EXPECT_EQ(table_.contribute(name_, kOld), 1U);
  begin_view();
  ASSERT_EQ(again_.size(), 1U);
  EXPECT_EQ(again_.front().bytes, kOld);
  EXPECT_THROW((void)table_.contribute(name_, kNew), std::exception);
}

TEST_F(Gathers, exchange_of_one_view_is_abandoned_with_it) {
  EXPECT_EQ(table_.contribute(of_view_, kOld), 1U);
  begin_view();
  EXPECT_TRUE(again_.empty());
  EXPECT_EQ(table_.contribute(of_view_, kNew), 1U);
  EXPECT_EQ(table_.receive(kOther, of_view_, 1, kOld), GatherTable::Counted::counted);
  EXPECT_TRUE(table_.complete(of_view_));
}

TEST_F(Gathers, parts_of_an_exchange_that_ended_with_its_view_are_not_taken_in_the_next) {
  exchange(of_view_);
  begin_view();
  EXPECT_FALSE(table_.take(of_view_));
  EXPECT_EQ(table_.contribute(of_view_, kNew), 1U) << "every view counts from 1";
}

TEST_F(Gathers, a_result_that_nobody_has_taken_yet_outlives_the_view) {
  exchange(name_);
  begin_view();
  EXPECT_TRUE(again_.empty());
  auto const parts = table_.take(name_);
  ASSERT_TRUE(parts);
  EXPECT_EQ(parts->size(), 2U);
}

TEST_F(Gathers, a_forgotten_name_goes_on_where_it_was) {
  exchange(name_);
  EXPECT_TRUE(table_.take(name_));
  begin_view();
  EXPECT_EQ(table_.known_names(), 0U);
  EXPECT_EQ(table_.contribute(name_, kNew), 2U);
}

TEST_F(Gathers, do_not_grow_over_1000_views) {
  for (int view = 0; view < 1'000; ++view) {
    auto const key = "key of view " + std::to_string(view);
    exchange(GatherTable::name_of(key, true));
    EXPECT_EQ(table_.contribute(GatherTable::name_of(key + ", open", true), kOld), 1U);
    EXPECT_EQ(table_.receive(kOther, GatherTable::name_of(key + ", not used here", false), 1, kOld),
              GatherTable::Counted::counted);
    begin_view();
    EXPECT_EQ(table_.known_names(), 0U);
  }
}

}  // namespace
}  // namespace holdfast::protocol
