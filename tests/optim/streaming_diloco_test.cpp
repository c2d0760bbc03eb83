#include <mutex>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <support/diloco_simulation.hpp>

#include <holdfast/collectives/diloco/exchange_path.hpp>
#include <holdfast/optim/streaming_diloco.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"
#include "vectors.hpp"

namespace holdfast {
namespace {

using test::Mlp;
using test::run_members;

using test::flat;
using test::inner_step;
using test::kSizes;
using test::take_inner_step;
using test::Vectors;

struct Run {
  char const* codec;
  std::int64_t overlap;
  double merge;
  int members;
  int fragments;
};

class EqualsSimulation : public ::testing::TestWithParam<Run> {};

TEST_P(EqualsSimulation, bit_for_bit_after_every_outer_step) {
  auto const [codec, overlap, merge, members, fragments] = GetParam();
  constexpr std::int64_t kSteps = 40;
  constexpr std::int64_t kPeriod = 8;

  std::vector<std::uint64_t> elements(std::begin(kSizes), std::end(kSizes));
  holdfast::testing::DilocoSetup setup;
  std::vector<std::size_t> begins{0};
  for (auto const size : elements) begins.push_back(begins.back() + size);
  for (auto const& fragment : diloco::balanced_fragments(elements, fragments)) {
    auto& ranges = setup.fragments.emplace_back();
    for (auto const& range : fragment.ranges)
      ranges.emplace_back(begins[range.parameter] + range.begin, begins[range.parameter] + range.end);
  }
  setup.schedule = diloco::Schedule(kPeriod, fragments, diloco::Spacing::paper);
  setup.overlap.assign(static_cast<std::size_t>(members), overlap);
  setup.merge = static_cast<float>(merge);
  setup.optimizer = diloco::OuterOptimizer::parse("nesterov(lr=0.7, momentum=0.6)");
  setup.codec = Codec::parse(codec);
  setup.feedback = setup.codec.needs_error_feedback() ? 0.95F : 0.0F;
  auto const second = setup.codec.bits_per_element() < 8 ? Codec::parse("int8") : setup.codec;
  auto const path = diloco::choose_path(setup.codec.bits_per_element(), second.bits_per_element(), members, 0, 0, 0);
  if (path.path == diloco::ExchangePath::two_phase) setup.second = second;
  setup.weights.assign(static_cast<std::size_t>(members), 1);
  holdfast::testing::DilocoSimulation simulation(setup, flat(*Vectors(1)));
  simulation.run(kSteps, inner_step);

  run_members(members, [&](Group group) {
    auto const rank = static_cast<std::size_t>(group.rank());
    Vectors model(1 + rank);  // rank 0's counts
    StreamingDiLoCo training(group, model,
                             StreamingDiLoCoOptions()
                                 .inner_steps(kPeriod)
                                 .fragments(fragments)
                                 .overlap(overlap)
                                 .merge(merge)
                                 .codec(codec)
                                 .outer("nesterov(lr=0.7, momentum=0.6)"));
    std::size_t next = 0;
    for (std::int64_t step = 1; step <= kSteps; ++step) {
      take_inner_step(*model, group.rank(), step);
      auto const outcome = training.advance();
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      for (auto const& applied : outcome->applied) {
        auto const& expected = simulation.exchanges().at(next++);
        EXPECT_EQ(applied.fragment, expected.fragment);
        EXPECT_EQ(applied.started, expected.started);
        EXPECT_EQ(applied.contributors, static_cast<std::size_t>(members));
        ASSERT_EQ(applied.outer_hash, diloco::hash_of(*expected.outer)) << "step " << step;
      }
    }
    EXPECT_GT(next, 2U);
    auto const own = flat(*model);
    EXPECT_EQ(diloco::hash_of(own), diloco::hash_of(simulation.replicas()[rank].own));
    {
      auto const outer = training.outer_parameters();
      EXPECT_EQ(diloco::hash_of(flat(*model)), diloco::hash_of(simulation.replicas()[rank].outer));
    }
    EXPECT_EQ(flat(*model), own);
  });
}

INSTANTIATE_TEST_SUITE_P(Runs, EqualsSimulation,
                         ::testing::Values(Run{"identity", 0, 0, 2, 1}, Run{"identity", 0, 0, 2, 3},
                                           Run{"identity", 1, 0, 2, 3}, Run{"identity", 5, 0.5, 2, 3},
                                           Run{"e3m0", 0, 0, 2, 3}, Run{"e3m0", 1, 0, 2, 3}, Run{"e3m0", 1, 0.5, 2, 3},
                                           Run{"e3m0", 5, 0, 2, 3}, Run{"e3m0", 5, 0.5, 3, 3}, Run{"e3m0", 1, 0, 4, 2},
                                           Run{"e3m0", 5, 0, 2, 8}, Run{"identity", 1, 0.5, 3, 3},
                                           Run{"int2", 1, 0, 2, 2}, Run{"int2", 5, 0, 3, 1}, Run{"e3m0", 1, 0, 1, 3}),
                         [](auto const& tested) {
                           auto const& run = tested.param;
                           return std::string(run.codec) + "_tau" + std::to_string(run.overlap) +
                                  (run.merge > 0 ? "_merged" : "") + "_" + std::to_string(run.members) + "members_" +
                                  std::to_string(run.fragments) + "fragments";
                         });

TEST(StreamingDiLoCo, a_contribution_that_is_not_finite_skips_the_exchange_and_loses_nothing) {
  run_members(2, [](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, StreamingDiLoCoOptions().inner_steps(4).fragments(1).overlap(0));
    auto const before = training.outer_hash();
    for (std::int64_t step = 1; step <= 4; ++step) {
      take_inner_step(*model, group.rank(), step);
      torch::NoGradGuard const no_grad;
      auto first = model->parameters()[0];
      float const kept = first[5].item<float>();
      if (group.rank() == 1 && step == 4) first[5] = std::numeric_limits<float>::quiet_NaN();
      auto const outcome = training.advance();
      if (group.rank() == 1 && step == 4) first[5] = kept;
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      if (step < 4) continue;
      ASSERT_EQ(outcome->applied.size(), 1U);
      EXPECT_TRUE(outcome->applied[0].is_skipped);
    }
    EXPECT_EQ(training.outer_hash(), before);
    for (std::int64_t step = 5; step <= 8; ++step) {
      take_inner_step(*model, group.rank(), step);
      ASSERT_TRUE(training.advance().has_value());
    }
    EXPECT_NE(training.outer_hash(), before);  // two periods of progress went into it
  });
}

TEST(StreamingDiLoCo, one_liar_cannot_move_a_robust_rule_far) {
  run_members(4, [](Group group) {
    Vectors model(1);
    auto const start = flat(*model);
    StreamingDiLoCo training(
        group, model,
        StreamingDiLoCoOptions().inner_steps(4).fragments(2).overlap(1).rule("trimmed_mean").byzantine(1));
    for (std::int64_t step = 1; step <= 24; ++step) {
      take_inner_step(*model, group.rank(), step);
      if (group.rank() == 3) {
        torch::NoGradGuard const no_grad;
        for (auto& parameter : model->parameters()) parameter.sub_(10);
      }
      ASSERT_TRUE(training.advance().has_value());
    }
    auto const outer = training.outer_parameters();
    auto const end = flat(*model);
    for (std::size_t i = 0; i < end.size(); ++i) ASSERT_NEAR(end[i], start[i], 2.0F);
  });
}

TEST(StreamingDiLoCo, trains_and_sends_little) {
  run_members(2, [](Group group) {
    Mlp model(static_cast<std::uint64_t>(1 + group.rank()), 64);
    StreamingDiLoCo training(
        group, model,
        StreamingDiLoCoOptions().inner_steps(10).fragments(2).overlap(2).outer("nesterov(lr=0.7, momentum=0.6)"));
    torch::optim::SGD sgd(model->parameters(), 0.1);
    auto const batch = test::make_batch(3);
    double const before = test::loss_of(model, batch).item<double>();
    std::uint64_t sent = 0;
    for (std::uint64_t step = 0; step < 100; ++step) {
      sgd.zero_grad();
      training.add_weight(12);
      test::loss_of(model, batch.part(group.rank(), 2)).backward();
      auto const outcome = training.step(sgd);
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      for (auto const& applied : outcome->applied) sent += applied.sent_bytes;
    }
    ASSERT_TRUE(training.drain().has_value());
    auto const outer = training.outer_parameters();
    EXPECT_LT(test::loss_of(model, batch).item<double>(), 0.7 * before);
    std::uint64_t parameters = 0;
    for (auto const& parameter : model->parameters()) parameters += static_cast<std::uint64_t>(parameter.numel());
    EXPECT_LT(sent * 70, parameters * 4 * 100);  // gradients of every step in float32
  });
}

TEST(StreamingDiLoCo, averaging_of_parameters_is_a_preset) {
  run_members(2, [](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, StreamingDiLoCoOptions::local_sgd(4));
    for (std::int64_t step = 1; step <= 4; ++step) {
      take_inner_step(*model, group.rank(), step);
      ASSERT_TRUE(training.advance().has_value());
    }
    std::vector<float> mean(flat(*model).size(), 0.0F);
    for (int replica = 0; replica < 2; ++replica) {
      auto own = flat(*Vectors(1));
      for (std::int64_t step = 1; step <= 4; ++step) inner_step(replica, step, own);
      for (std::size_t i = 0; i < own.size(); ++i) mean[i] += own[i] / 2;
    }
    auto const merged = flat(*model);
    for (std::size_t i = 0; i < mean.size(); ++i) ASSERT_NEAR(merged[i], mean[i], 1e-6F);
  });
}

TEST(StreamingDiLoCo, impossible_options_are_refused_with_the_rule_that_is_broken) {
  run_members(1, [](Group group) {
    Vectors model(1);
    auto const complaint = [&](StreamingDiLoCoOptions const& options) -> std::string {
      try {
        StreamingDiLoCo(group, model, options);
      } catch (Error const& error) {
        return error.what();
      }
      return "nothing was thrown";
    };
    auto const base = StreamingDiLoCoOptions().inner_steps(10).fragments(4);
    EXPECT_THAT(complaint(StreamingDiLoCoOptions(base).overlap(8)),
                ::testing::HasSubstr("overlap: 8 must be from 0 to 7"));
    EXPECT_THAT(complaint(StreamingDiLoCoOptions(base).merge(1.5)), ::testing::HasSubstr("alpha = 1.5"));
    EXPECT_THAT(complaint(StreamingDiLoCoOptions(base).codec("fp4")), ::testing::HasSubstr("unknown codec"));
    EXPECT_THAT(complaint(StreamingDiLoCoOptions(base).outer("adam")), ::testing::HasSubstr("unknown outer optimizer"));
    EXPECT_THAT(complaint(StreamingDiLoCoOptions(base)
                              .layer_of([](std::string const&) { return -1; })
                              .outside(diloco::Outside::own)
                              .fragments(1)
                              .overlap(0)),
                ::testing::HasSubstr("fragments: 1 must be at least 2"));
  });
}

TEST(StreamingDiLoCo, different_schedules_are_refused_at_start) {
  run_members(2, [](Group group) {
    Vectors model(1);
    try {
      StreamingDiLoCo(group, model, StreamingDiLoCoOptions().inner_steps(10 + group.rank()));
      ADD_FAILURE() << "nothing was thrown";
    } catch (Error const& error) {
      EXPECT_EQ(error.errc(), Errc::mismatch);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("inner_steps"));
    }
  });
}

}  // namespace
}  // namespace holdfast
