#include <gtest/gtest.h>
#include <protocol/proposer.hpp>

namespace holdfast::protocol {
namespace {

using namespace std::chrono_literals;

constexpr MemberId a{0}, b{1}, c{2};
constexpr Ballot kOwn{3, a};
constexpr action::Instant kNow{1h};

class ProposerTest : public testing::Test {
 protected:
  ProposerTest() { proposer_.open(kOwn, kNow + 1s, kNow + 500ms); }
  static Promise promise(Ballot ballot) {
    Promise promise;
    promise.view = ViewId{1};
    promise.ballot = ballot;
    return promise;
  }
  Proposer proposer_;
  Electorate electorate_{{a, b, c}, QuorumRule::majority, {}};
};

TEST_F(ProposerTest, counts_promises_of_its_own_ballot_only) {
  proposer_.on_promise(b, promise({2, b}));
  proposer_.on_promise(c, promise(kOwn));
  EXPECT_EQ(proposer_.promisers(), MemberSet({c}));
}

TEST_F(ProposerTest, counts_no_promises_once_it_has_proposed) {
  proposer_.on_promise(a, promise(kOwn));
  proposer_.propose(Value{});
  proposer_.on_promise(b, promise(kOwn));
  EXPECT_EQ(proposer_.promisers(), MemberSet({a}));
}

TEST_F(ProposerTest, forgets_promises_with_the_ballot) {
  proposer_.on_promise(a, promise(kOwn));
  proposer_.on_accepted(a);
  proposer_.open({4, a}, kNow + 3s, kNow + 2s);
  EXPECT_TRUE(proposer_.promisers().empty());
  EXPECT_TRUE(proposer_.accepted().empty());
}

TEST_F(ProposerTest, knows_since_when_there_is_a_quorum) {
  proposer_.on_promise(a, promise(kOwn));
  EXPECT_FALSE(proposer_.quorum_since(electorate_, {}, kNow));
  proposer_.on_promise(b, promise(kOwn));
  EXPECT_EQ(proposer_.quorum_since(electorate_, {}, kNow + 10ms), kNow + 10ms);
  EXPECT_EQ(proposer_.quorum_since(electorate_, {}, kNow + 20ms), kNow + 10ms);
}

TEST_F(ProposerTest, opens_no_ballot_before_its_pause_is_over) {
  EXPECT_FALSE(proposer_.may_open(kNow + 499ms, {9, b}));
  EXPECT_TRUE(proposer_.may_open(kNow + 500ms, {9, b}));
}

TEST_F(ProposerTest, gives_a_ballot_up_when_it_is_late_or_overtaken) {
  EXPECT_FALSE(proposer_.may_open(kNow + 600ms, kOwn)) << "it is open, and the highest";
  EXPECT_TRUE(proposer_.may_open(kNow + 600ms, {3, b})) << "overtaken";
  EXPECT_TRUE(proposer_.may_open(kNow + 1001ms, kOwn)) << "late";
}

}  // namespace
}  // namespace holdfast::protocol
