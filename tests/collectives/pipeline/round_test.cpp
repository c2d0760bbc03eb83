#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/members.hpp>

#include <holdfast/collectives/round.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using testing::run_members;

Deadline soon() {
  return Deadline::after(20s);
}

void fill(Bucket const& bucket, float value) {
  auto const buffer = bucket.contribution();
  std::fill_n(reinterpret_cast<float*>(buffer.data()), buffer.elements(), value);
}
float const* floats(MutableBuffer buffer) {
  return reinterpret_cast<float const*>(buffer.data());
}

AggregateOptions robust(char const* rule, int byzantine, Scope scope = Scope::step) {
  AggregateOptions options;
  options.rule = Rule::parse(rule);
  options.byzantine = byzantine;
  options.scope = scope;
  return options;
}

TEST(Round, shows_nothing_before_its_commit) {
  run_members(3, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(100, DType::float32);
    fill(bucket, static_cast<float>(communicator.rank()));
    std::vector<float> out(100, -7);
    std::vector<float> const in(100, 1);
    auto round = communicator.begin();
    round.aggregate(bucket);
    auto const work = round.all_reduce(std::span(in), std::span(out), ReduceOp::sum);
    ASSERT_TRUE(work.wait(soon()));
    EXPECT_EQ(out[0], -7);
    EXPECT_EQ(floats(bucket.result())[0], 0);
    auto const reduction = round.commit(soon());
    ASSERT_TRUE(reduction) << reduction.error().message();
    EXPECT_EQ(out[99], 3);
    EXPECT_EQ(floats(bucket.result())[99], 1);
    EXPECT_EQ(reduction->contributors, (std::vector<int>{0, 1, 2}));
  });
}

TEST(Round, alternates_results_so_that_the_last_one_stays_the_callers) {
  run_members(2, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(5000, DType::float32);
    float const* previous = nullptr;
    for (int step = 1; step <= 5; ++step) {
      fill(bucket, static_cast<float>(step));
      auto round = communicator.begin();
      round.aggregate(bucket);
      ASSERT_TRUE(round.commit(soon()));
      EXPECT_EQ(floats(bucket.result())[4999], static_cast<float>(step));
      if (previous != nullptr) {
        EXPECT_EQ(previous[4999], static_cast<float>(step - 1));
      }
      EXPECT_NE(previous, floats(bucket.result()));
      previous = floats(bucket.result());
    }
  });
}

TEST(Round, leaves_a_row_that_is_bad_in_one_bucket_out_of_every_bucket_of_the_step) {
  for (char const* rule : {"mean", "trimmed_mean", "nnm+geometric_median"})
    run_members(4, "loopback", [&](Communicator& communicator) {
      auto first = communicator.allocate(10'000, DType::float32);
      auto second = communicator.allocate(3, DType::float32);
      bool const is_bad = communicator.rank() == 2;
      fill(first, is_bad ? 1000.0F : 8.0F);
      fill(second, is_bad ? std::numeric_limits<float>::quiet_NaN() : 4.0F);
      auto round = communicator.begin();
      round.aggregate(first, robust(rule, 1));
      round.aggregate(second, robust(rule, 1));
      auto const reduction = round.commit(soon());
      ASSERT_TRUE(reduction) << reduction.error().message();
      EXPECT_EQ(reduction->contributors, (std::vector<int>{0, 1, 3}));
      ASSERT_EQ(reduction->excluded.size(), 1U);
      EXPECT_EQ(reduction->excluded[0].rank, 2);
      EXPECT_EQ(floats(first.result())[9999], 8.0F) << rule;
      EXPECT_EQ(floats(second.result())[2], 4.0F) << rule;
    });
}

TEST(Round, fails_by_its_rule_at_all_members_and_lets_the_next_one_start) {
  run_members(3, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(100, DType::float32);
    fill(bucket, communicator.rank() == 1 ? std::numeric_limits<float>::infinity() : 1.0F);
    auto const failed = communicator.aggregate(bucket, robust("mean", 0)).wait(soon());
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, Errc::too_many_faulty_rows);
    auto const out_of_bounds = communicator.aggregate(bucket, robust("trimmed_mean", 2)).wait(soon());
    ASSERT_FALSE(out_of_bounds);
    EXPECT_EQ(out_of_bounds.error().code, Errc::f_out_of_bounds);
    fill(bucket, 5);
    ASSERT_TRUE(communicator.aggregate(bucket).wait(soon()));
    EXPECT_EQ(floats(bucket.result())[0], 5);
  });
}

TEST(Round, is_pending_for_who_waits_for_a_late_member_and_names_it) {
  std::atomic<int> seen_pending{0};
  run_members(3, "loopback", [&](Communicator& communicator) {
    auto bucket = communicator.allocate(1000, DType::float32);
    fill(bucket, 1);
    if (communicator.rank() == 1) {
      while (seen_pending.load() < 2) std::this_thread::yield();
      ASSERT_TRUE(communicator.aggregate(bucket).wait(soon()));
      return;
    }
    auto round = communicator.begin();
    round.aggregate(bucket);
    auto const early = round.commit(Deadline::after(50ms));
    ASSERT_FALSE(early);
    EXPECT_EQ(early.error().code, Errc::pending);
    EXPECT_NE(early.error().detail.find("rank 1"), std::string::npos) << early.error().detail;
    seen_pending.fetch_add(1);
    auto const late = round.commit(soon());
    ASSERT_TRUE(late) << late.error().message();
    EXPECT_EQ(floats(bucket.result())[999], 1);
  });
}

TEST(Round, refuses_collectives_that_differ_before_any_data_moves_and_names_the_member) {
  run_members(3, "loopback", [](Communicator& communicator) {
    bool const differs = communicator.rank() == 2;
    std::vector<float> const in(differs ? 11 : 10, 1.0F);
    std::vector<float> out(in.size(), -1.0F);
    auto const outcome = communicator.all_reduce(std::span(in), std::span(out), ReduceOp::sum).wait(soon());
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Errc::mismatch);
    EXPECT_NE(outcome.error().detail.find("10 at rank 0 and 11 at rank 2"), std::string::npos)
        << outcome.error().detail;
    EXPECT_EQ(out[0], -1.0F);
    auto const scope = communicator.aggregate(std::span(in).first(10), std::span(out).first(10),
                                              robust("mean", 0, differs ? Scope::bucket : Scope::step));
    EXPECT_EQ(scope.wait(soon()).error().code, Errc::mismatch);
    ASSERT_TRUE(communicator.all_reduce(std::span(in).first(10), std::span(out).first(10), ReduceOp::sum).wait(soon()));
    EXPECT_EQ(out[9], 3.0F);
  });
}

TEST(Round, keeps_many_in_flight_in_order) {
  run_members(3, "loopback", [](Communicator& communicator) {
    constexpr int kMany = 700;  // more than the window of a fabric
    std::vector<std::vector<float>> outs(kMany, std::vector<float>(3));
    std::vector<Work> works;
    for (int i = 0; i < kMany; ++i) {
      std::vector<float> const in(3, static_cast<float>(i));
      works.push_back(
          communicator.all_reduce(std::span(in), std::span(outs[static_cast<std::size_t>(i)]), ReduceOp::sum));
    }
    for (int i = kMany - 1; i >= 0; --i) {
      ASSERT_TRUE(works[static_cast<std::size_t>(i)].wait(soon()));
      EXPECT_EQ(outs[static_cast<std::size_t>(i)][2], static_cast<float>(3 * i));
    }
  });
}

TEST(Round, goes_on_while_the_caller_computes) {
  run_members(2, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(1 << 20, DType::float32);
    fill(bucket, 2);
    auto const work = communicator.aggregate(bucket);
    auto const give_up = Deadline::after(10s);
    while (!work.is_done() && !give_up.has_passed()) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(work.is_done());
    EXPECT_EQ(floats(bucket.result())[0], 2);
  });
}

TEST(Round, of_one_communicator_has_nothing_to_do_with_those_of_another) {
  run_members(2, "loopback", [](Communicator& first) {
    Communicator second(first.group());
    std::vector<float> const in(4, 1.0F);
    std::vector<float> out(4);
    for (int step = 0; step < 3; ++step) {
      ASSERT_TRUE(first.all_reduce(std::span(in), std::span(out), ReduceOp::sum).wait(soon()));
      ASSERT_TRUE(second.all_reduce(std::span(in), std::span(out), ReduceOp::sum).wait(soon()));
      ASSERT_TRUE(second.barrier().wait(soon()));
    }
    EXPECT_EQ(out[3], 2.0F);
  });
}

TEST(Round, separate_streams_do_not_wait_for_each_other) {
  run_members(2, "loopback", [](Communicator& communicator) {
    auto const a = communicator.stream("a");
    auto const b = communicator.stream("b");
    std::vector<float> const in(4, 1.0F);
    std::vector<float> out_a(4);
    std::vector<float> out_b(4);
    bool const is_first = communicator.rank() == 0;
    // The two members use the streams in opposite order.
    auto first = communicator.begin(is_first ? a : b);
    first.all_reduce(std::span(in), std::span(is_first ? out_a : out_b), ReduceOp::sum);
    EXPECT_EQ(first.commit(Deadline::after(20ms)).error().code, Errc::pending);
    auto second = communicator.begin(is_first ? b : a);
    second.all_reduce(std::span(in), std::span(is_first ? out_b : out_a), ReduceOp::sum);
    ASSERT_TRUE(second.commit(soon()));
    ASSERT_TRUE(first.commit(soon()));
    EXPECT_EQ(out_a[3], 2.0F);
    EXPECT_EQ(out_b[3], 2.0F);
  });
}

TEST(Round, centres_clipping_on_the_last_committed_result) {
  run_members(3, "loopback", [](Communicator& communicator) {
    auto const options = robust("centered_clipping(threshold=1, iterations=1)", 1);
    auto bucket = communicator.allocate(1, DType::float32);
    // Every row is 10 away: each round moves the centre by at most the threshold.
    for (int step = 1; step <= 4; ++step) {
      fill(bucket, 10);
      ASSERT_TRUE(communicator.aggregate(bucket, options).wait(soon()));
      EXPECT_FLOAT_EQ(floats(bucket.result())[0], static_cast<float>(step));
    }
  });
}

TEST(Round, names_the_rows_that_the_rule_gave_no_weight) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(3000, DType::float32);
    float const values[] = {1, 2, 1000, 3};
    fill(bucket, values[communicator.rank()]);
    for (char const* rule : {"mda", "nnm+trimmed_mean"}) {
      auto const reduction = communicator.aggregate(bucket, robust(rule, 1)).wait(soon());
      ASSERT_TRUE(reduction) << reduction.error().message();
      EXPECT_EQ(reduction->contributors, (std::vector<int>{0, 1, 2, 3})) << "it arrived and was finite";
      ASSERT_EQ(reduction->excluded.size(), 1U) << rule;
      EXPECT_EQ(reduction->excluded[0].rank, 2);
      EXPECT_EQ(reduction->excluded[0].cause, Exclusion::Cause::no_weight);
      EXPECT_EQ(reduction->excluded[0].reason, std::string("given no weight by ") + rule);
    }
    auto const coordinate_wise = communicator.aggregate(bucket, robust("trimmed_mean", 1)).wait(soon());
    ASSERT_TRUE(coordinate_wise);
    EXPECT_TRUE(coordinate_wise->excluded.empty());
  });
}

TEST(Round, names_only_rows_without_weight_in_all_its_decisions) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto first = communicator.allocate(100, DType::float32);
    auto second = communicator.allocate(100, DType::float32);
    bool const lies = communicator.rank() == 2;
    fill(first, lies ? 1000.0F : static_cast<float>(communicator.rank()));
    fill(second, communicator.rank() == 0 ? 1000.0F : 1.0F);
    auto round = communicator.begin();
    round.aggregate(first, robust("mda", 1, Scope::bucket));
    round.aggregate(second, robust("mda", 1, Scope::bucket));
    auto const reduction = round.commit(soon());
    ASSERT_TRUE(reduction);
    EXPECT_TRUE(reduction->excluded.empty());
  });
}

TEST(Round, decides_on_each_shard_by_itself_in_scope_shard) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(4 * 64, DType::float32);
    fill(bucket, static_cast<float>(communicator.rank()));
    // Each member lies in its own shard, far less than its distance to the others over all shards together allows.
    auto* const values = reinterpret_cast<float*>(bucket.contribution().data());
    std::fill_n(values + 64 * communicator.rank(), 64, 1000.0F);
    auto const by_shard = communicator.aggregate(bucket, robust("mda", 1, Scope::shard)).wait(soon());
    ASSERT_TRUE(by_shard) << by_shard.error().message();
    for (int shard = 0; shard < 4; ++shard)
      EXPECT_FLOAT_EQ(floats(bucket.result())[64 * shard], static_cast<float>(6 - shard) / 3) << shard;
    EXPECT_TRUE(by_shard->excluded.empty()) << "each has weight in some shard";
    auto const together = communicator.aggregate(bucket, robust("mda", 1, Scope::bucket)).wait(soon());
    ASSERT_TRUE(together);
    float const* const all = floats(bucket.result());
    EXPECT_GT(std::max({all[0], all[64], all[128], all[192]}), 300.0F) << "one decision cannot leave out all four";
  });
}

TEST(Round, leaves_a_bad_row_out_of_all_shards_in_scope_shard) {
  run_members(4, "loopback", [](Communicator& communicator) {
    for (char const* rule : {"mda", "median", "nnm+median"}) {
      auto bucket = communicator.allocate(4 * 64, DType::float32);
      fill(bucket, communicator.rank() == 1 ? 7.0F : 1.0F);
      if (communicator.rank() == 1)
        reinterpret_cast<float*>(bucket.contribution().data())[70] = std::numeric_limits<float>::quiet_NaN();
      auto const reduction = communicator.aggregate(bucket, robust(rule, 1, Scope::shard)).wait(soon());
      ASSERT_TRUE(reduction) << reduction.error().message();
      EXPECT_EQ(reduction->contributors, (std::vector<int>{0, 2, 3}));
      for (int element = 0; element < 256; ++element) ASSERT_EQ(floats(bucket.result())[element], 1.0F) << rule;
    }
  });
}

TEST(Round, falls_back_to_the_rule_that_was_named_and_to_no_other) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(1000, DType::float32);
    fill(bucket, communicator.rank() == 3 ? 1000.0F : 2.0F);
    auto options = robust("krum", 1);  // needs 2f + 2 < n
    auto const refused = communicator.aggregate(bucket, options).wait(soon());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::f_out_of_bounds);
    options.fallback = Rule::parse("trimmed_mean");
    auto const reduction = communicator.aggregate(bucket, options).wait(soon());
    ASSERT_TRUE(reduction) << reduction.error().message();
    EXPECT_TRUE(reduction->used_fallback);
    EXPECT_EQ(floats(bucket.result())[999], 2);
    options.rule = Rule::parse("median");
    auto const within = communicator.aggregate(bucket, options).wait(soon());
    ASSERT_TRUE(within);
    EXPECT_FALSE(within->used_fallback);
    options = robust("krum", 2);
    options.fallback = Rule::parse("trimmed_mean");  // 2f < n does not hold either
    auto const neither = communicator.aggregate(bucket, options).wait(soon());
    ASSERT_FALSE(neither);
    EXPECT_EQ(neither.error().code, Errc::f_out_of_bounds);
  });
}

TEST(Round, clips_around_the_median_whatever_one_row_holds) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(9000, DType::float32);
    fill(bucket, static_cast<float>(communicator.rank() % 3));
    if (communicator.rank() == 3)
      reinterpret_cast<float*>(bucket.contribution().data())[8000] = std::numeric_limits<float>::quiet_NaN();
    auto const reduction =
        communicator.aggregate(bucket, robust("centered_clipping(center=median, threshold=1)", 1)).wait(soon());
    ASSERT_TRUE(reduction) << reduction.error().message();
    EXPECT_EQ(reduction->contributors, (std::vector<int>{0, 1, 2}));
    for (int const element : {0, 8000, 8999}) EXPECT_NEAR(floats(bucket.result())[element], 1, 1e-3);
  });
}

TEST(Round, puts_rows_into_other_buckets_each_time) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(10, DType::float32);
    float const values[] = {0, 1, 10, 100};
    fill(bucket, values[communicator.rank()]);
    std::vector<float> seen;
    for (int step = 0; step < 12; ++step) {
      ASSERT_TRUE(communicator.aggregate(bucket, robust("bucketing(3)+median(yes)", 0)).wait(soon()));
      seen.push_back(floats(bucket.result())[0]);
    }
    EXPECT_NE(std::adjacent_find(seen.begin(), seen.end(), std::not_equal_to<>()), seen.end());
  });
}

TEST(Round, carries_what_a_rule_remembers_into_another_communicator) {
  run_members(3, "loopback", [](Communicator& communicator) {
    auto const options = robust("centered_clipping(threshold=1, iterations=1)", 1);
    auto bucket = communicator.allocate(100, DType::float32);
    fill(bucket, 10);
    for (int step = 0; step < 3; ++step) ASSERT_TRUE(communicator.aggregate(bucket, options).wait(soon()));
    auto const state = communicator.save_rule_state();
    ASSERT_TRUE(communicator.aggregate(bucket, options).wait(soon()));
    float const next = floats(bucket.result())[0];
    ASSERT_TRUE(communicator.load_rule_state(state).has_value());
    EXPECT_EQ(communicator.save_rule_state(), state);
    ASSERT_TRUE(communicator.aggregate(bucket, options).wait(soon()));
    EXPECT_EQ(floats(bucket.result())[0], next);
    for (std::size_t length = 0; length < state.size(); length += 7) {
      auto const cut = communicator.load_rule_state(std::span(state).first(length));
      if (length != 8) {
        EXPECT_FALSE(cut.has_value()) << length;
      }
    }
  });
}

TEST(Round, gives_each_member_its_own_neighbours) {
  run_members(4, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(5000, DType::float32);
    float const values[] = {0, 1, 2, 90};
    fill(bucket, values[communicator.rank()]);
    ASSERT_TRUE(communicator.aggregate(bucket, robust("nna", 1)).wait(soon()));
    float const expected[] = {1, 1, 1, 31};
    EXPECT_FLOAT_EQ(floats(bucket.result())[4999], expected[communicator.rank()]);
  });
}

TEST(Round, reads_a_contribution_once_however_often_its_member_changes_it) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the lie under test is a data race: a member writes to its contribution while others read it";
#endif
  run_members(3, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(200'000, DType::float32);
    std::atomic<bool> is_over{false};
    std::jthread liar;
    fill(bucket, 1);
    if (communicator.rank() == 2)
      liar = std::jthread([&] {
        // The rules of C++ forbid this race, and so do we; a lying process would not care.
        for (float value = 0; !is_over.load(); value += 1)
          std::atomic_ref(*reinterpret_cast<float*>(bucket.contribution().data())).store(value);
      });
    for (int step = 0; step < 20; ++step) {
      auto const reduction = communicator.aggregate(bucket, robust("nnm+trimmed_mean", 1)).wait(soon());
      ASSERT_TRUE(reduction) << reduction.error().message();  // a difference between members would be `diverged`
    }
    is_over.store(true);
  });
}

TEST(Round, ends_at_once_when_the_communicator_is_aborted) {
  std::atomic<bool> is_over{false};
  run_members(2, "loopback", [&](Communicator& communicator) {
    // A member that has left would end the round for another reason.
    while (communicator.rank() == 1 && !is_over.load()) std::this_thread::yield();
    std::vector<float> const in(10, 1.0F);
    std::vector<float> out(10);
    if (communicator.rank() == 0) {
      auto const work = communicator.all_reduce(std::span(in), std::span(out), ReduceOp::sum);
      communicator.abort("the first reason");
      communicator.abort("the second reason");
      auto const outcome = work.wait(soon());
      EXPECT_FALSE(outcome);
      EXPECT_EQ(outcome.error().code, Errc::aborted);
      EXPECT_NE(outcome.error().detail.find("the first reason"), std::string::npos);
      EXPECT_EQ(communicator.barrier().wait(soon()).error().code, Errc::aborted);
      is_over.store(true);
    }
  });
}

TEST(Round, that_is_given_up_tells_the_others_instead_of_letting_them_wait) {
  run_members(2, "loopback", [](Communicator& communicator) {
    auto bucket = communicator.allocate(10, DType::float32);
    auto const start = std::chrono::steady_clock::now();
    if (communicator.rank() == 0) {
      auto round = communicator.begin();
      round.aggregate(bucket);
      return;
    }
    auto round = communicator.begin();
    round.aggregate(bucket);
    auto const outcome = round.commit(soon());
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Errc::member_left) << outcome.error().message();
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
  });
}

TEST(Round, rejects_misuse_with_the_value_and_the_bound) {
  run_members(1, "loopback", [](Communicator& communicator) {
    std::vector<std::int32_t> integers(4);
    std::vector<float> four(4);
    std::vector<float> five(5);
    EXPECT_THROW(communicator.aggregate(std::span(integers), std::span(integers)), Error);
    EXPECT_THROW(communicator.all_reduce(std::span(four), std::span(five), ReduceOp::sum), Error);
    EXPECT_THROW(communicator.broadcast(std::span(four), 1), Error);
    EXPECT_THROW(communicator.aggregate(std::span(four), std::span(four), robust("mean", -1)), Error);
    ASSERT_TRUE(communicator.barrier().wait(soon()));
  });
}

}  // namespace
}  // namespace holdfast
