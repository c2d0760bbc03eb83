#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "members.hpp"
#include "values.hpp"

/// How rounds end: committed, failed by their rule, refused, pending or aborted, alike at all members.
namespace holdfast::conformance {
namespace {

using namespace std::chrono_literals;

class Rounds : public ::testing::TestWithParam<Setting> {
 protected:
  static void run(std::function<void(Communicator&)> const& member) { run_members(GetParam(), member); }
};

AggregateOptions options_of(char const* rule, int byzantine, Scope scope = Scope::step) {
  AggregateOptions options;
  options.rule = Rule::parse(rule);
  options.byzantine = byzantine;
  options.scope = scope;
  return options;
}

float* floats(MutableBuffer buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

void fill(Bucket const& bucket, float value) {
  std::fill_n(floats(bucket.contribution()), bucket.elements(), value);
}

std::vector<int> all_but(int ranks, int left_out) {
  std::vector<int> rest;
  for (int rank = 0; rank < ranks; ++rank)
    if (rank != left_out) rest.push_back(rank);
  return rest;
}

/// A round that must work, whatever happened before it.
void expect_working(Communicator& communicator) {
  Values in(DType::int64, 999);
  Values out(DType::int64, 999);
  in.fill([](std::size_t index) { return static_cast<double>(index); });
  auto const outcome = communicator.all_reduce(in.in(), out.out(), ReduceOp::sum).wait(soon());
  ASSERT_TRUE(outcome) << outcome.error().message();
  int const ranks = communicator.world_size();
  EXPECT_EQ(out.count_wrong([&](std::size_t index) { return static_cast<double>(index) * ranks; }), 0U);
}

TEST_P(Rounds, commit_several_buckets_together_in_both_scopes) {
  run([](Communicator& communicator) {
    int const ranks = communicator.world_size();
    std::vector<Bucket> buckets;
    for (std::size_t const elements : {0UL, 1UL, 1000UL, 50'001UL})
      buckets.push_back(communicator.allocate(elements, DType::float32));
    for (auto const scope : {Scope::step, Scope::bucket})
      for (int step = 0; step < 3; ++step) {
        auto round = communicator.begin();
        for (std::size_t index = 0; index < buckets.size(); ++index) {
          fill(buckets[index], static_cast<float>(4 * static_cast<int>(index) + step));
          round.aggregate(buckets[index], options_of(ranks > 2 ? "krum" : "median", 0, scope));
        }
        auto const outcome = round.commit(soon());
        ASSERT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(outcome->contributors, all_but(ranks, -1));
        for (std::size_t index = 0; index < buckets.size(); ++index)
          for (std::size_t element = 0; element < buckets[index].elements(); ++element)
            ASSERT_EQ(floats(buckets[index].result())[element], static_cast<float>(4 * static_cast<int>(index) + step));
      }
  });
}

TEST_P(Rounds, leave_out_a_contribution_that_is_not_finite_and_name_it) {
  if (GetParam().ranks < 3) GTEST_SKIP() << "no rule tolerates a fault among " << GetParam().ranks;
  run([](Communicator& communicator) {
    int const ranks = communicator.world_size();
    int const liar = ranks - 1;
    for (char const* const rule : {"median", "trimmed_mean", "geometric_median", "nnm+mean"})
      for (auto const scope : {Scope::step, Scope::bucket})
        for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
          SCOPED_TRACE(rule);
          auto clean = communicator.allocate(30'000, DType::float32);
          auto dirty = communicator.allocate(20'003, DType::float32);
          fill(clean, 2);
          fill(dirty, 3);
          if (communicator.rank() == liar) floats(dirty.contribution())[20'002] = bad;
          auto round = communicator.begin();
          round.aggregate(clean, options_of(rule, 1, scope));
          round.aggregate(dirty, options_of(rule, 1, scope));
          auto outcome = round.commit(soon());
          ASSERT_TRUE(outcome) << outcome.error().message();
          EXPECT_EQ(outcome->contributors, all_but(ranks, liar));
          // Among equal rows a rule may give its weight to one of them.
          std::erase_if(outcome->excluded, [](auto const& e) { return e.cause == Exclusion::Cause::no_weight; });
          ASSERT_EQ(outcome->excluded.size(), 1U);
          EXPECT_EQ(outcome->excluded[0].rank, liar);
          EXPECT_EQ(outcome->excluded[0].member,
                    communicator.group().view().members[static_cast<std::size_t>(liar)].id);
          EXPECT_NE(outcome->excluded[0].reason.find("non-finite"), std::string::npos);
          for (std::size_t element = 0; element < dirty.elements(); ++element)
            ASSERT_NEAR(floats(dirty.result())[element], 3.0F, 1e-5F);
          ASSERT_NEAR(floats(clean.result())[29'999], 2.0F, 1e-5F);
        }
  });
}

TEST_P(Rounds, fail_alike_when_more_rows_are_bad_than_the_rule_tolerates_and_the_next_one_works) {
  if (GetParam().ranks < 3) GTEST_SKIP() << "no rule tolerates a fault among " << GetParam().ranks;
  run([](Communicator& communicator) {
    for (char const* const rule : {"median", "geometric_median"}) {
      SCOPED_TRACE(rule);
      auto bucket = communicator.allocate(5000, DType::float32);
      fill(bucket, 1);
      if (communicator.rank() < 2) floats(bucket.contribution())[7] = std::numeric_limits<float>::quiet_NaN();
      auto const before = floats(bucket.result());
      auto const outcome = communicator.aggregate(bucket, options_of(rule, 1)).wait(soon());
      ASSERT_FALSE(outcome);
      EXPECT_EQ(outcome.error().code, Errc::too_many_faulty_rows) << outcome.error().message();
      EXPECT_EQ(floats(bucket.result()), before);
      EXPECT_EQ(before[7], 0);
      expect_working(communicator);
    }
  });
}

TEST_P(Rounds, refuse_f_beyond_the_bound_of_the_rule_and_the_next_one_works) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "a group of one applies no rule";
  run([](Communicator& communicator) {
    auto bucket = communicator.allocate(5000, DType::float32);
    auto const outcome = communicator.aggregate(bucket, options_of("median", communicator.world_size())).wait(soon());
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Errc::f_out_of_bounds) << outcome.error().message();
    expect_working(communicator);
  });
}

TEST_P(Rounds, refuse_collectives_that_differ_naming_the_first_member_and_the_next_one_works) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "nobody to differ from";
  run([](Communicator& communicator) {
    int const odd = communicator.world_size() - 1;
    bool const is_odd = communicator.rank() == odd;
    Values in(DType::float32, 101);
    Values out(DType::float32, 101);
    Values wide(DType::float64, 101);
    auto bucket = communicator.allocate(64, DType::float32);
    auto const expect_mismatch = [&](Outcome<Reduction> const& outcome) {
      ASSERT_FALSE(outcome);
      EXPECT_EQ(outcome.error().code, Errc::mismatch) << outcome.error().message();
      EXPECT_NE(outcome.error().message().find("rank " + std::to_string(odd)), std::string::npos)
          << outcome.error().message();
      EXPECT_EQ(out.count_wrong([&](std::size_t index) { return Values(DType::float32, 101)[index]; }), 0U);
      expect_working(communicator);
    };
    {
      SCOPED_TRACE("elements");
      ConstBuffer const shorter(in.in().data(), is_odd ? 100 : 101, DType::float32);
      MutableBuffer const target(out.out().data(), shorter.elements(), DType::float32);
      expect_mismatch(communicator.all_reduce(shorter, target, ReduceOp::sum).wait(soon()));
    }
    {
      SCOPED_TRACE("dtype");
      expect_mismatch(
          communicator.all_reduce(is_odd ? wide.in() : in.in(), is_odd ? wide.out() : out.out(), ReduceOp::sum)
              .wait(soon()));
    }
    {
      SCOPED_TRACE("operation");
      expect_mismatch(communicator.all_reduce(in.in(), out.out(), is_odd ? ReduceOp::max : ReduceOp::sum).wait(soon()));
    }
    {
      SCOPED_TRACE("collective");
      expect_mismatch((is_odd ? communicator.broadcast(bucket.contribution(), 0)
                              : communicator.all_reduce(in.in(), out.out(), ReduceOp::sum))
                          .wait(soon()));
    }
    for (auto const scope : {Scope::step, Scope::bucket}) {
      SCOPED_TRACE("rule");
      expect_mismatch(
          communicator.aggregate(bucket, options_of(is_odd ? "median" : "geometric_median", 0, scope)).wait(soon()));
      SCOPED_TRACE("parameter");
      expect_mismatch(communicator
                          .aggregate(bucket, options_of(is_odd ? "centered_clipping(iterations=2)"
                                                               : "centered_clipping(iterations=3)",
                                                        0, scope))
                          .wait(soon()));
      SCOPED_TRACE("byzantine");
      expect_mismatch(communicator.aggregate(bucket, options_of("median", is_odd ? 0 : 1, scope)).wait(soon()));
    }
  });
}

TEST_P(Rounds, work_after_more_refusals_than_a_fabric_has_slots) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "nobody to differ from";
  run([](Communicator& communicator) {
    auto bucket = communicator.allocate(64, DType::float32);
    for (int turn = 0; turn < 1100; ++turn) {
      auto const outcome =
          communicator.aggregate(bucket, options_of(communicator.rank() == 1 ? "median" : "krum", 0)).wait(soon());
      ASSERT_FALSE(outcome);
      ASSERT_EQ(outcome.error().code, Errc::mismatch) << outcome.error().message();
    }
    fill(bucket, static_cast<float>(communicator.rank()));
    auto const outcome = communicator.aggregate(bucket).wait(soon());
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_NEAR(floats(bucket.result())[63], static_cast<float>(communicator.world_size() - 1) / 2, 1e-6F);
  });
}

TEST_P(Rounds, are_pending_for_who_waits_for_a_late_member_and_succeed_once_it_comes) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "nobody to wait for";
  run([](Communicator& communicator) {
    int const late = communicator.world_size() - 1;
    Values in(DType::float32, 10'000);
    Values out(DType::float32, 10'000);
    in.fill([](std::size_t) { return 1.0; });
    auto& group = communicator.group();
    if (communicator.rank() == late) {
      // Comes only when all others have seen their deadline pass.
      ASSERT_TRUE(group.all_gather("all others are pending", {}, soon()));
      auto const outcome = communicator.all_reduce(in.in(), out.out(), ReduceOp::sum).wait(soon());
      ASSERT_TRUE(outcome) << outcome.error().message();
    } else {
      auto const work = communicator.all_reduce(in.in(), out.out(), ReduceOp::sum);
      auto const start = std::chrono::steady_clock::now();
      auto const early = work.wait(Deadline::after(50ms));
      auto const waited = std::chrono::steady_clock::now() - start;
      ASSERT_FALSE(early);
      EXPECT_EQ(early.error().code, Errc::pending) << early.error().message();
      EXPECT_NE(early.error().message().find("rank " + std::to_string(late)), std::string::npos)
          << early.error().message();
      EXPECT_EQ(early.error().failed_members,
                std::vector<MemberId>{group.view().members[static_cast<std::size_t>(late)].id});
      EXPECT_GE(waited, 49ms);
      EXPECT_LT(waited, 5s);
      ASSERT_TRUE(group.all_gather("all others are pending", {}, soon()));
      auto const outcome = work.wait(soon());
      ASSERT_TRUE(outcome) << outcome.error().message();
    }
    EXPECT_EQ(out.count_wrong([&](std::size_t) { return static_cast<double>(communicator.world_size()); }), 0U);
    expect_working(communicator);
  });
}

TEST_P(Rounds, end_at_once_when_the_communicator_is_aborted_and_keep_the_first_reason) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "nobody to wait for";
  run([](Communicator& communicator) {
    auto& group = communicator.group();
    if (communicator.rank() == 0) {
      Values in(DType::float32, 100'000);
      Values out(DType::float32, 100'000);
      auto const work = communicator.all_reduce(in.in(), out.out(), ReduceOp::sum);
      std::jthread const other([&] {
        std::this_thread::sleep_for(30ms);
        communicator.abort("the user pressed a key");
        communicator.abort("a later reason");
      });
      auto const start = std::chrono::steady_clock::now();
      auto const outcome = work.wait(soon());
      EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
      ASSERT_FALSE(outcome);
      EXPECT_EQ(outcome.error().code, Errc::aborted);
      EXPECT_NE(outcome.error().message().find("pressed a key"), std::string::npos) << outcome.error().message();
      auto const next = communicator.barrier().wait(soon());
      ASSERT_FALSE(next);
      EXPECT_EQ(next.error().code, Errc::aborted);
    }
    ASSERT_TRUE(group.all_gather("aborted", {}, soon()));
  });
}

TEST_P(Rounds, tell_who_left_instead_of_waiting) {
  if (GetParam().ranks == 1) GTEST_SKIP() << "nobody to leave";
  run([](Communicator& communicator) {
    expect_working(communicator);
    if (communicator.rank() == 0) {
      ASSERT_TRUE(communicator.group().leave(soon()));
      return;
    }
    Values in(DType::float32, 1000);
    Values out(DType::float32, 1000);
    auto const start = std::chrono::steady_clock::now();
    auto const outcome = communicator.all_reduce(in.in(), out.out(), ReduceOp::sum).wait(soon());
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Errc::member_left) << outcome.error().message();
  });
}

INSTANTIATE_TEST_SUITE_P(Conformance, Rounds, ::testing::ValuesIn(settings()),
                         [](auto const& test) { return name_of(test.param); });

}  // namespace
}  // namespace holdfast::conformance
