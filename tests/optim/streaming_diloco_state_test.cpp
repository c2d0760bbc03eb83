#include <array>
#include <map>
#include <mutex>

#include <gmock/gmock.h>
#include <support/diloco_simulation.hpp>

#include <holdfast/optim/streaming_diloco.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/state_registry.hpp>

#include "members.hpp"
#include "vectors.hpp"

namespace holdfast {
namespace {

using test::flat;
using test::run_members;
using test::take_inner_step;
using test::Vectors;

constexpr std::int64_t kPeriod = 8;

StreamingDiLoCoOptions options_of(std::string const& codec, std::int64_t overlap) {
  return StreamingDiLoCoOptions().inner_steps(kPeriod).fragments(4).overlap(overlap).codec(codec).outer(
      "nesterov(lr=0.7, momentum=0.6)");
}

void run(StreamingDiLoCo& training, Vectors& model, int replica, std::int64_t steps) {
  for (std::int64_t i = 0; i < steps; ++i) {
    take_inner_step(*model, replica, training.steps() + 1);
    auto const outcome = training.advance();
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
  }
}

/// One that lets exchanges take longer may be done while another still waits for the last ones.
void wait_for_all(Group& group) {
  ASSERT_TRUE(group.all_gather("end", {}, Deadline::after(std::chrono::seconds(20))).has_value());
}

struct Ends {
  std::vector<std::vector<float>> own = std::vector<std::vector<float>>(3);
  std::vector<std::uint64_t> outer = std::vector<std::uint64_t>(3, 0);
};

// Members of one run may have different overlaps: one of them has then applied what another has not.
struct Case {
  char const* codec;
  std::array<std::int64_t, 3> overlap;
};

class Resumed : public ::testing::TestWithParam<Case> {};

TEST_P(Resumed, four_hundred_steps_are_two_hundred_resumed_and_two_hundred) {
  auto const overlap_of = [](int rank) { return GetParam().overlap[static_cast<std::size_t>(rank)]; };
  Ends whole;
  run_members(3, [&](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, options_of(GetParam().codec, overlap_of(group.rank())));
    auto const rank = static_cast<std::size_t>(group.rank());
    run(training, model, group.rank(), 400);
    whole.own[rank] = flat(*model);
    whole.outer[rank] = training.outer_hash();
    wait_for_all(group);
  });
  std::array<StateSnapshot, 3> kept;
  run_members(3, [&](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, options_of(GetParam().codec, overlap_of(group.rank())));
    StateRegistry registry;
    training.register_state(registry);
    run(training, model, group.rank(), 200);
    auto const digest = registry.digest();
    auto const digests =
        group.all_gather("digest", std::as_bytes(std::span(&digest, 1)), Deadline::after(std::chrono::seconds(20)));
    ASSERT_TRUE(digests.has_value());
    for (auto const& bytes : *digests) EXPECT_EQ(bytes, digests->front()) << "replicated state differs";
    kept[static_cast<std::size_t>(group.rank())] = registry.snapshot();
    wait_for_all(group);
  });
  run_members(3, [&](Group group) {
    Vectors model(77);
    StreamingDiLoCo training(group, model, options_of(GetParam().codec, overlap_of(group.rank())));
    StateRegistry registry;
    training.register_state(registry);
    auto const rank = static_cast<std::size_t>(group.rank());
    auto const restored = registry.restore(kept[rank]);
    ASSERT_TRUE(restored.has_value()) << restored.error().message();
    EXPECT_EQ(training.steps(), 200);
    EXPECT_EQ(training.joined(), 0);
    run(training, model, group.rank(), 200);
    EXPECT_EQ(flat(*model), whole.own[rank]);
    EXPECT_EQ(training.outer_hash(), whole.outer[rank]);
    wait_for_all(group);
  });
}

INSTANTIATE_TEST_SUITE_P(Runs, Resumed,
                         ::testing::Values(Case{"e3m0", {1, 1, 1}}, Case{"int2", {5, 5, 5}}, Case{"e3m0", {0, 5, 7}}),
                         [](auto const& tested) {
                           return std::string(tested.param.codec) + "_" + std::to_string(tested.param.overlap[2]);
                         });

TEST(StreamingDiLoCo, damaged_state_is_refused_and_changes_nothing) {
  run_members(1, [](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, options_of("e3m0", 1));
    StateRegistry registry;
    training.register_state(registry);
    run(training, model, 0, 20);
    auto const before = registry.snapshot();
    for (std::size_t part = 0; part < before.size(); ++part) {
      auto damaged = before;
      damaged[part].bytes.resize(damaged[part].bytes.size() / 2);
      damaged[part].layout.shape = {damaged[part].bytes.size()};
      auto const outcome = registry.restore(damaged);
      ASSERT_FALSE(outcome.has_value());
      EXPECT_EQ(outcome.error().code, Errc::mismatch);
      ASSERT_TRUE(registry.restore(before).has_value());
      EXPECT_EQ(registry.snapshot(), before);
    }
  });
}

TEST(StreamingDiLoCo, a_joiner_takes_the_outer_parameters_and_contributes_after_a_full_period) {
  StateSnapshot outer;
  run_members(2, [&](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, options_of("e3m0", 1));
    StateRegistry registry;
    training.register_state(registry);
    run(training, model, group.rank(), 19);
    if (group.rank() == 0) outer = registry.snapshot(Sharing::replicated);
  });
  run_members(3, [&](Group group) {
    Vectors model(5);
    StreamingDiLoCo training(group, model, options_of("e3m0", 1));
    StateRegistry registry;
    training.register_state(registry);
    ASSERT_TRUE(registry.restore(outer).has_value());
    EXPECT_EQ(training.joined(), 19);
    std::map<int, std::int64_t> first;
    for (std::int64_t step = 20; step <= 40; ++step) {
      take_inner_step(*model, group.rank(), step);
      auto const outcome = training.advance();
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      for (auto const& applied : outcome->applied) {
        // All three are joiners here: nobody contributes before a full period of own steps.
        EXPECT_EQ(applied.is_skipped, applied.started < 19 + kPeriod) << applied.started << " " << applied.reason;
        if (applied.has_contributed) first.try_emplace(applied.fragment, applied.started);
      }
    }
    EXPECT_EQ(first.size(), 4U);
    for (auto const& [fragment, started] : first) EXPECT_GE(started, 19 + kPeriod);
  });
}

TEST(StreamingDiLoCo, equals_the_simulation_while_contributions_are_lost) {
  constexpr std::int64_t kSteps = 80;
  constexpr int kMembers = 3;
  auto const contributes = [](int replica, std::int64_t step) {
    std::mt19937 random(static_cast<unsigned>(31 * step + replica));
    return random() % 10 >= 4;
  };
  std::vector<std::uint64_t> elements(std::begin(test::kSizes), std::end(test::kSizes));
  holdfast::testing::DilocoSetup setup;
  std::vector<std::size_t> begins{0};
  for (auto const size : elements) begins.push_back(begins.back() + size);
  for (auto const& fragment : diloco::balanced_fragments(elements, 4)) {
    auto& ranges = setup.fragments.emplace_back();
    for (auto const& range : fragment.ranges)
      ranges.emplace_back(begins[range.parameter] + range.begin, begins[range.parameter] + range.end);
  }
  setup.schedule = diloco::Schedule(kPeriod, 4, diloco::Spacing::paper);
  setup.overlap = {1, 3, 7};
  setup.optimizer = diloco::OuterOptimizer::parse("nesterov(lr=0.7, momentum=0.6)");
  setup.codec = Codec::parse("int2");
  setup.feedback = 0.95F;
  setup.weights = {1, 1, 1};
  holdfast::testing::DilocoSimulation simulation(setup, flat(*Vectors(1)));
  std::size_t skips = 0;
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    holdfast::testing::DilocoVerdict verdict;
    verdict.contributors.emplace();
    for (int replica = 0; replica < kMembers; ++replica)
      if (contributes(replica, step)) verdict.contributors->push_back(replica);
    verdict.is_skipped = verdict.contributors->size() < 2;
    simulation.plan(step, verdict);
  }
  simulation.run(kSteps, test::inner_step);
  for (auto const& exchange : simulation.exchanges()) skips += exchange.is_skipped;
  EXPECT_GT(skips, 0U);

  run_members(kMembers, [&](Group group) {
    auto const rank = static_cast<std::size_t>(group.rank());
    Vectors model(1);
    StreamingDiLoCo training(
        group, model,
        options_of("int2", setup.overlap[rank]).min_contributors(2).contributes([&](int, std::int64_t step) {
          return contributes(group.rank(), step);
        }));
    std::map<std::int64_t, holdfast::testing::DilocoExchange const*> expected;
    for (auto const& exchange : simulation.exchanges()) expected[exchange.started] = &exchange;
    for (std::int64_t step = 1; step <= kSteps; ++step) {
      take_inner_step(*model, group.rank(), step);
      auto const before = flat(*model);
      auto const outcome = training.advance();
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      for (auto const& applied : outcome->applied) {
        auto const& exchange = *expected.at(applied.started);
        ASSERT_EQ(applied.is_skipped, exchange.is_skipped) << applied.reason;
        if (applied.is_skipped) {
          EXPECT_TRUE(outcome->applied.size() > 1 || flat(*model) == before) << "a skip changes nothing";
          continue;
        }
        EXPECT_EQ(applied.contributors, exchange.contributors.size());
        ASSERT_EQ(applied.outer_hash, diloco::hash_of(*exchange.outer)) << "started at " << applied.started;
      }
    }
    EXPECT_EQ(flat(*model), simulation.replicas()[rank].own);
    wait_for_all(group);
  });
}

TEST(StreamingDiLoCo, members_count_by_the_tokens_they_trained_on) {
  run_members(2, [](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, StreamingDiLoCoOptions::local_sgd(kPeriod));
    for (std::int64_t step = 1; step <= 2 * kPeriod; ++step) {
      take_inner_step(*model, group.rank(), step);
      training.add_weight(group.rank() == 0 ? 3 : 1);
      auto const outcome = training.advance();
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      for (auto const& applied : outcome->applied) EXPECT_EQ(applied.weight, 4 * kPeriod);
    }
    std::vector<double> expected;
    for (float const value : flat(*Vectors(1))) expected.push_back(value);
    for (std::int64_t step = 1; step <= 2 * kPeriod; ++step)
      for (int replica = 0; replica < 2; ++replica) {
        std::vector<float> moved(expected.size(), 0.0F);
        test::inner_step(replica, step, moved);
        for (std::size_t i = 0; i < moved.size(); ++i) expected[i] += (replica == 0 ? 0.75 : 0.25) * moved[i];
      }
    auto const values = flat(*model);
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[i], 1e-5);
  });
}

TEST(StreamingDiLoCo, members_of_a_site_contribute_once) {
  std::array<std::uint64_t, 3> hashes{};
  auto const train = [&](Group group, int site, std::string const& name) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, options_of("e3m0", 2).site(name));
    for (std::int64_t step = 1; step <= 40; ++step) {
      take_inner_step(*model, site, step);
      auto const outcome = training.advance();
      ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
      for (auto const& applied : outcome->applied) {
        EXPECT_EQ(applied.contributors, 2U);
        EXPECT_TRUE(applied.has_contributed);
      }
    }
    hashes[static_cast<std::size_t>(group.rank())] = training.outer_hash();
  };
  run_members(2, [&](Group group) { train(group, group.rank(), ""); });
  auto const alone = hashes[0];
  EXPECT_EQ(hashes[1], alone);
  run_members(3, [&](Group group) { train(group, group.rank() / 2, group.rank() / 2 == 0 ? "here" : "there"); });
  for (auto const hash : hashes) EXPECT_EQ(hash, alone);
}

TEST(StreamingDiLoCo, eager_updates_use_the_last_result_with_the_own_part_refreshed) {
  constexpr std::int64_t kSteps = 41;
  // Two replicas, one fragment, H = 8, identity, sgd(lr=1): by the formula, in double.
  std::vector<std::vector<double>> own(2), outer(2), last_row(2);
  std::vector<double> last;
  auto const start = flat(*Vectors(1));
  for (int m = 0; m < 2; ++m) {
    auto const at = static_cast<std::size_t>(m);
    own[at].assign(start.begin(), start.end());
    outer[at] = own[at];
    last_row[at].assign(start.size(), 0);
  }
  last.assign(start.size(), 0);
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    std::vector<std::vector<double>> rows(2);
    for (int m = 0; m < 2; ++m) {
      auto const at = static_cast<std::size_t>(m);
      std::vector<float> moved(start.size(), 0.0F);
      test::inner_step(m, step, moved);
      for (std::size_t i = 0; i < start.size(); ++i) own[at][i] += moved[i];
      if (step % kPeriod != 0) continue;
      for (std::size_t i = 0; i < start.size(); ++i) rows[at].push_back(outer[at][i] - own[at][i]);
      for (std::size_t i = 0; i < start.size(); ++i) outer[at][i] -= last[i] + (rows[at][i] - last_row[at][i]) / 2;
      own[at] = outer[at];
    }
    if (step % kPeriod != 0) continue;
    for (std::size_t i = 0; i < start.size(); ++i) last[i] = (rows[0][i] + rows[1][i]) / 2;
    last_row = rows;
  }
  run_members(2, [&](Group group) {
    Vectors model(1);
    StreamingDiLoCo training(group, model, StreamingDiLoCoOptions::local_sgd(kPeriod).overlap(kPeriod - 1).eager(true));
    run(training, model, group.rank(), kSteps);
    auto const values = flat(*model);
    auto const& expected = own[static_cast<std::size_t>(group.rank())];
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[i], 1e-5);
  });
}

TEST(StreamingDiLoCo, a_parameter_in_no_fragment_or_in_two_is_refused) {
  run_members(1, [](Group group) {
    Vectors model(1);
    auto const complaint = [&](std::vector<diloco::Fragment> const& list) -> std::string {
      try {
        StreamingDiLoCo(group, model,
                        StreamingDiLoCoOptions().fragments(static_cast<int>(list.size())).fragment_list(list));
      } catch (Error const& error) {
        return error.what();
      }
      return "";
    };
    EXPECT_EQ(complaint({{{{0, 0, 3000}, {1, 0, 70}}}, {{{2, 0, 1500}}}}), "");
    EXPECT_THAT(complaint({{{{0, 0, 3000}, {1, 0, 70}}}, {{{2, 0, 1400}}}}), ::testing::HasSubstr("v1500"));
    EXPECT_THAT(complaint({{{{0, 0, 3000}, {1, 0, 70}}}, {{{0, 5, 9}, {2, 0, 1500}}}}), ::testing::HasSubstr("v3000"));
  });
}

}  // namespace
}  // namespace holdfast
