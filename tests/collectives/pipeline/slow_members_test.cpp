#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/members.hpp>

#include <holdfast/collectives/round.hpp>
#include <holdfast/runtime/error.hpp>

/// Members whose training thread comes late, by SlowPolicy. Lateness is made by waiting for what the others reached,
/// never by a time: a member comes to a round only after the others have ended it.
namespace holdfast {
namespace {

using namespace std::chrono_literals;
using testing::run_members;

Deadline soon() {
  return Deadline::after(60s);
}

CommunicatorOptions skipping(std::string const& fabric, std::chrono::milliseconds floor) {
  CommunicatorOptions options;
  options.fabric = fabric;
  options.slow_members = SlowMembers{SlowPolicy::skip, 2, floor};
  return options;
}

/// Each member judges itself: the one that is to be late does it soon, the others never, however busy the machine is.
template <typename Function>
void run_with_slow(int members, std::string const& fabric, int slow, Function const& member,
                   std::chrono::milliseconds floor = 50ms) {
  auto groups = Group::in_threads(members);
  std::vector<std::jthread> threads;
  for (auto& group : groups)
    threads.emplace_back([&, group = std::move(group)]() mutable {
      try {
        Communicator communicator(group, skipping(fabric, group.rank() == slow ? floor : 600'000ms));
        member(communicator);
      } catch (std::exception const& error) {
        ADD_FAILURE() << error.what();
      }
    });
}

void fill(Bucket const& bucket, float value) {
  auto const buffer = bucket.contribution();
  std::fill_n(reinterpret_cast<float*>(buffer.data()), buffer.elements(), value);
}
std::vector<float> values(Bucket const& bucket) {
  auto const* const data = reinterpret_cast<float const*>(bucket.result().data());
  return {data, data + bucket.elements()};
}

AggregateOptions by(std::string const& rule, int byzantine = 0, Scope scope = Scope::step) {
  AggregateOptions options;
  options.rule = Rule::parse(rule);
  options.byzantine = byzantine;
  options.scope = scope;
  return options;
}

/// Where the members' training threads are.
class Clock {
 public:
  void ended(int step) {
    int before = ended_.load();
    while (before < step && !ended_.compare_exchange_weak(before, step)) {
    }
  }
  void wait_until_ended(int step) const {
    auto const deadline = soon();
    while (ended_.load() < step && !deadline.has_passed() && !::testing::Test::HasFailure())
      std::this_thread::sleep_for(1ms);
    ASSERT_GE(ended_.load(), step) << "the others did not go on";
  }

 private:
  std::atomic<int> ended_{-1};
};

/// What each member saw of each step; all must have seen the same.
class Ledger {
 public:
  void note(std::size_t step, std::vector<int> const& contributors, std::vector<float> result) {
    std::lock_guard const lock(mutex_);
    if (steps_.size() <= step) steps_.resize(step + 1);
    auto& entry = steps_[step];
    if (entry.members++ == 0) {
      entry.contributors = contributors;
      entry.result = std::move(result);
      return;
    }
    EXPECT_EQ(entry.contributors, contributors) << "step " << step;
    ASSERT_EQ(entry.result.size(), result.size());
    EXPECT_EQ(std::memcmp(entry.result.data(), result.data(), result.size() * sizeof(float)), 0) << "step " << step;
  }
  [[nodiscard]] int members_in(std::size_t step) const { return steps_.at(step).members; }
  [[nodiscard]] std::size_t steps() const { return steps_.size(); }
  [[nodiscard]] std::vector<int> const& contributors(std::size_t step) const { return steps_.at(step).contributors; }

 private:
  struct Entry {
    int members = 0;
    std::vector<int> contributors;
    std::vector<float> result;
  };
  std::mutex mutex_;
  std::vector<Entry> steps_;
};

class SlowMembersTest : public ::testing::TestWithParam<std::string> {};

TEST_P(SlowMembersTest, end_rounds_without_the_contribution_of_a_late_training_thread) {
  constexpr int kMembers = 4;
  constexpr int kSteps = 9;
  for (auto const& [rule, byzantine] : {std::pair("mean", 0), std::pair("trimmed_mean", 1), std::pair("krum", 0),
                                        std::pair("nnm+geometric_median", 1)}) {
    Clock clock;
    Ledger ledger;
    run_with_slow(kMembers, GetParam(), 2, [&, rule = rule, byzantine = byzantine](Communicator& communicator) {
      bool const is_slow = communicator.rank() == 2;
      auto first = communicator.allocate(10'000, DType::float32);
      auto second = communicator.allocate(77, DType::float32);
      for (int step = 0; step < kSteps; ++step) {
        bool const is_late = is_slow && step >= 2 && step < 7;
        if (is_late) clock.wait_until_ended(step);
        fill(first, static_cast<float>(10 * step + communicator.rank()));
        fill(second, static_cast<float>(communicator.rank()));
        auto round = communicator.begin();
        round.aggregate(first, by(rule, byzantine));
        round.aggregate(second, by(rule, byzantine));
        auto const outcome = round.commit(soon());
        ASSERT_TRUE(outcome) << outcome.error().message();
        if (!is_slow) clock.ended(step);
        auto result = values(first);
        auto const rest = values(second);
        result.insert(result.end(), rest.begin(), rest.end());
        ledger.note(static_cast<std::size_t>(step), outcome->contributors, std::move(result));
        if (!is_late) continue;
        EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 1, 3}));
        ASSERT_FALSE(outcome->excluded.empty());
        auto const said = std::find_if(outcome->excluded.begin(), outcome->excluded.end(),
                                       [](Exclusion const& excluded) { return excluded.rank == 2; });
        ASSERT_NE(said, outcome->excluded.end());
        EXPECT_EQ(said->cause, Exclusion::Cause::missing);
        if (std::string(rule) == "mean") {
          EXPECT_FLOAT_EQ(values(first)[9999], 10 * step + 4.0F / 3);
        }
      }
    });
    ASSERT_EQ(ledger.steps(), static_cast<std::size_t>(kSteps)) << rule;
    for (std::size_t step = 0; step < kSteps; ++step) EXPECT_EQ(ledger.members_in(step), kMembers) << rule;
  }
}

TEST_P(SlowMembersTest, stay_at_most_one_round_behind) {
  Clock clock;
  std::atomic<bool> may_come{false};
  run_with_slow(3, GetParam(), 1, [&](Communicator& communicator) {
    auto bucket = communicator.allocate(1000, DType::float32);
    bool const is_slow = communicator.rank() == 1;
    for (int step = 0; step < 6; ++step) {
      fill(bucket, static_cast<float>(communicator.rank()));
      if (is_slow && step == 2)
        while (!may_come.load()) std::this_thread::sleep_for(1ms);
      auto round = communicator.begin();
      round.aggregate(bucket);
      if (communicator.rank() == 0 && step == 3) {
        // The others have ended step 2 without it and cannot end this one before it has taken that.
        auto const early = round.commit(Deadline::after(500ms));
        ASSERT_FALSE(early);
        EXPECT_EQ(early.error().code, Errc::pending);
        may_come.store(true);
      }
      auto const outcome = round.commit(soon());
      ASSERT_TRUE(outcome) << outcome.error().message();
      if (step == 2) {
        EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 2}));
        EXPECT_EQ(values(bucket)[999], 1.0F);
      }
    }
  });
}

TEST_P(SlowMembersTest, leave_a_row_that_is_late_in_one_bucket_out_of_all_buckets_of_the_step) {
  constexpr int kMembers = 4;
  for (auto const& [rule, byzantine] : {std::pair("mean", 0), std::pair("median", 1), std::pair("krum", 0)}) {
    Clock clock;
    Ledger ledger;
    run_with_slow(kMembers, GetParam(), 3, [&, rule = rule, byzantine = byzantine](Communicator& communicator) {
      bool const is_slow = communicator.rank() == 3;
      auto first = communicator.allocate(40'000, DType::float32);
      auto second = communicator.allocate(5'000, DType::float32);
      for (int step = 0; step < 4; ++step) {
        bool const is_late = is_slow && step > 0;
        fill(first, is_late ? 1000.0F : static_cast<float>(communicator.rank()));
        fill(second, is_late ? 1000.0F : 7.0F);
        auto round = communicator.begin();
        round.aggregate(first, by(rule, byzantine));
        if (is_late) clock.wait_until_ended(step);
        round.aggregate(second, by(rule, byzantine));
        auto const outcome = round.commit(soon());
        ASSERT_TRUE(outcome) << outcome.error().message();
        if (!is_slow) clock.ended(step);
        auto result = values(first);
        auto const rest = values(second);
        EXPECT_EQ(rest[4999], 7.0F) << rule << ", step " << step;
        EXPECT_LT(result[39'999], 4.0F);
        result.insert(result.end(), rest.begin(), rest.end());
        ledger.note(static_cast<std::size_t>(step), outcome->contributors, std::move(result));
        if (step > 0) {
          EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 1, 2}));
        }
      }
    });
  }
}

TEST_P(SlowMembersTest, count_a_contribution_that_is_complete_when_only_the_commit_is_late) {
  Clock clock;
  run_with_slow(
      3, GetParam(), 0,
      [&](Communicator& communicator) {
        auto bucket = communicator.allocate(1000, DType::float32);
        std::vector<float> const in(50, static_cast<float>(communicator.rank()));
        for (int step = 0; step < 3; ++step) {
          std::vector<float> out(50, -1.0F);
          fill(bucket, static_cast<float>(step + 1));
          auto const before = values(bucket)[0];
          auto round = communicator.begin();
          round.aggregate(bucket);
          round.aggregate(std::span(in), std::span(out));
          if (communicator.rank() == 0) {
            clock.wait_until_ended(step);
            EXPECT_EQ(values(bucket)[0], before) << "a result is visible before its commit";
            EXPECT_EQ(out[49], -1.0F);
          }
          auto const outcome = round.commit(soon());
          ASSERT_TRUE(outcome) << outcome.error().message();
          if (communicator.rank() != 0) clock.ended(step);
          EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 1, 2}));
          EXPECT_EQ(values(bucket)[999], static_cast<float>(step + 1));
          EXPECT_EQ(out[49], 1.0F);
        }
      },
      500ms);
}

TEST_P(SlowMembersTest, serve_lone_collectives_and_codecs_and_keep_the_residual_of_what_was_not_used) {
  Clock clock;
  Ledger ledger;
  run_with_slow(
      3, GetParam(), 2,
      [&](Communicator& communicator) {
        constexpr std::size_t kElements = 1000;
        std::vector<float> residual(kElements, 0.0F);
        bool const is_slow = communicator.rank() == 2;
        for (int step = 0; step < 5; ++step) {
          bool const is_late = is_slow && step == 3;
          if (is_late) clock.wait_until_ended(step);
          std::vector<float> const in(kElements, 0.37F * static_cast<float>(1 + communicator.rank() + step));
          std::vector<float> out(kElements);
          AggregateOptions options;
          options.codec = Codec::parse("e3m0");
          options.residual = residual;
          options.condition = "step " + std::to_string(step);
          auto const before = residual;
          auto const outcome = communicator.aggregate(std::span(in), std::span(out), options).wait(soon());
          ASSERT_TRUE(outcome) << outcome.error().message();
          if (!is_slow) clock.ended(step);
          EXPECT_EQ(residual == before, is_late) << "step " << step;
          ledger.note(static_cast<std::size_t>(step), outcome->contributors, std::move(out));
          if (step == 3) {
            EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 1}));
          }
        }
      },
      500ms);
}

TEST_P(SlowMembersTest, are_served_in_the_first_round_when_its_layout_is_registered) {
  Clock clock;
  run_with_slow(3, GetParam(), 0, [&](Communicator& communicator) {
    auto const stream = communicator.stream("layouts");
    auto bucket = communicator.allocate(300, DType::float32);
    communicator.register_layout(stream, 300, DType::float32, by("median"));
    bool const is_slow = communicator.rank() == 0;
    if (is_slow) clock.wait_until_ended(0);
    fill(bucket, is_slow ? 9.0F : 2.0F);
    auto round = communicator.begin(stream);
    round.aggregate(bucket, by("median"));
    auto const outcome = round.commit(soon());
    ASSERT_TRUE(outcome) << outcome.error().message();
    clock.ended(0);
    EXPECT_EQ(outcome->contributors, (std::vector<int>{1, 2}));
    EXPECT_EQ(values(bucket)[0], 2.0F);
  });
}

TEST_P(SlowMembersTest, leave_n_and_not_f_so_that_a_rule_out_of_its_bound_fails_or_falls_back) {
  for (bool const falls_back : {false, true}) {
    Clock clock;
    run_with_slow(3, GetParam(), 1, [&](Communicator& communicator) {
      auto bucket = communicator.allocate(100, DType::float32);
      auto options = by("trimmed_mean", 1);
      if (falls_back) options.fallback = Rule::parse("mean");
      bool const is_slow = communicator.rank() == 1;
      for (int step = 0; step < 4; ++step) {
        bool const is_late = step == 1 || step == 2;
        if (is_slow && is_late) clock.wait_until_ended(step);
        fill(bucket, static_cast<float>(step));
        auto round = communicator.begin();
        round.aggregate(bucket, options);
        auto const outcome = round.commit(soon());
        if (!is_slow) clock.ended(step);
        if (is_late && !falls_back) {
          ASSERT_FALSE(outcome);
          EXPECT_EQ(outcome.error().code, Errc::f_out_of_bounds);
          continue;
        }
        ASSERT_TRUE(outcome) << outcome.error().message();
        EXPECT_EQ(outcome->used_fallback, is_late);
        EXPECT_EQ(values(bucket)[99], static_cast<float>(step));
      }
    });
  }
}

TEST_P(SlowMembersTest, are_left_out_at_once_where_enough_others_have_come) {
  Clock clock;
  Ledger ledger;
  run_members(4, skipping(GetParam(), 60s), [&](Communicator& communicator) {
    auto const stream = communicator.stream("quick");
    auto bucket = communicator.allocate(2000, DType::float32);
    bool const is_slow = communicator.rank() >= 2;
    auto const begin = std::chrono::steady_clock::now();
    for (int step = 0; step < 20; ++step) {
      if (step == 1) communicator.wait_for_at_least(stream, 2);
      if (step >= 1 && is_slow) clock.wait_until_ended(step);
      fill(bucket, static_cast<float>(communicator.rank() + step));
      auto round = communicator.begin(stream);
      round.aggregate(bucket);
      auto const outcome = round.commit(soon());
      ASSERT_TRUE(outcome) << outcome.error().message();
      if (!is_slow) clock.ended(step);
      ledger.note(static_cast<std::size_t>(step), outcome->contributors, values(bucket));
      if (step >= 1) {
        EXPECT_EQ(outcome->contributors, (std::vector<int>{0, 1}));
      }
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 60s);
  });
}

TEST_P(SlowMembersTest, agree_on_every_round_whoever_is_late_when) {
  auto const seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr std::size_t kSteps = 120;
  constexpr int kMembers = 4;
  Ledger ledger;
  std::atomic<int> left_out{0};
  run_members(kMembers, skipping(GetParam(), 2ms), [&](Communicator& communicator) {
    std::mt19937 own(seed + static_cast<unsigned>(communicator.rank()));
    std::mt19937 shared(seed);
    auto first = communicator.allocate(3'000, DType::float32);
    auto second = communicator.allocate(50'000, DType::float32);
    for (std::size_t step = 0; step < kSteps; ++step) {
      auto const scope = shared() % 2 == 0 ? Scope::step : Scope::bucket;
      auto const options = by(shared() % 3 == 0 ? "geometric_median" : "mean", 0, scope);
      auto const nap = [&] {
        if (own() % 12 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(own() % 12));
      };
      auto const level = static_cast<float>(shared() % 100);
      fill(first, level + static_cast<float>(communicator.rank()));
      fill(second, level - static_cast<float>(communicator.rank()));
      nap();
      auto round = communicator.begin();
      round.aggregate(first, options);
      nap();
      round.aggregate(second, options);
      nap();
      auto const outcome = round.commit(soon());
      ASSERT_TRUE(outcome) << outcome.error().message();
      auto result = values(first);
      auto const rest = values(second);
      result.insert(result.end(), rest.begin(), rest.end());
      left_out.fetch_add(kMembers - static_cast<int>(outcome->contributors.size()));
      ledger.note(step, outcome->contributors, std::move(result));
    }
  });
  ASSERT_EQ(ledger.steps(), kSteps);
  for (std::size_t step = 0; step < kSteps; ++step) EXPECT_EQ(ledger.members_in(step), kMembers);
  RecordProperty("left_out", left_out.load());
}

INSTANTIATE_TEST_SUITE_P(Fabrics, SlowMembersTest, ::testing::Values("loopback", "shm", "tcp"),
                         [](auto const& tested) { return tested.param; });

}  // namespace
}  // namespace holdfast
