#include <array>
#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <support/diloco_simulation.hpp>

#include <holdfast/collectives/diloco/outer_step.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast::diloco {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = OuterOptimizer::Kind;

std::string complaint(auto const& function) {
  try {
    function();
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::bad_argument);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(OuterOptimizer, steps_are_those_of_its_table) {
  std::array<float, 1> const d{8};
  auto const step = [&](OuterOptimizer const& optimizer, std::vector<float> state) {
    std::array<float, 1> w{100};
    optimizer.apply(d, w, state, 0);
    state.insert(state.begin(), w[0]);
    return state;
  };
  EXPECT_THAT(step({Kind::nesterov, 0.5F, 0.25F}, {16}), ElementsAre(100 - 0.5F * (8 + 0.25F * 12), 12));
  EXPECT_THAT(step({Kind::momentum, 0.5F, 0.25F}, {16}), ElementsAre(94, 12));
  EXPECT_THAT(step({Kind::sgd, 0.5F, 0}, {}), ElementsAre(96));
}

TEST(OuterOptimizer, delayed_nesterov_takes_the_momentum_in_with_every_nth_result) {
  OuterOptimizer const optimizer(Kind::delayed_nesterov, 0.5F, 0.5F, 2);
  std::array<float, 1> w{100};
  std::array<float, 2> state{4, 0};
  optimizer.apply(std::array<float, 1>{8}, w, state, 0);
  EXPECT_THAT(w, ElementsAre(98));
  EXPECT_THAT(state, ElementsAre(4, 8));
  optimizer.apply(std::array<float, 1>{16}, w, state, 1);
  EXPECT_THAT(state, ElementsAre(14, 0));            // 0.5 * 4 + 24 / 2
  EXPECT_THAT(w, ElementsAre(98 - 0.5F * (7 + 8)));  // mu v + D / N
}

TEST(OuterOptimizer, text_is_read_and_written) {
  EXPECT_EQ(OuterOptimizer::parse("nesterov").text(), "nesterov(lr=0.4, momentum=0.9)");
  EXPECT_EQ(OuterOptimizer::parse("nesterov(0.7, 0.6)").text(), "nesterov(lr=0.7, momentum=0.6)");
  EXPECT_EQ(OuterOptimizer::parse("sgd(lr=1)").text(), "sgd(lr=1)");
  EXPECT_EQ(OuterOptimizer::parse("delayed_nesterov(every=3)").text(),
            "delayed_nesterov(lr=0.4, momentum=0.9, every=3)");
  EXPECT_THAT(complaint([] { (void)OuterOptimizer::parse("adam"); }),
              HasSubstr("Outer optimizers: nesterov, momentum, sgd, delayed_nesterov"));
  EXPECT_THAT(complaint([] { (void)OuterOptimizer::parse("nesterov(lr=0)"); }), HasSubstr("lr = '0' must be"));
  EXPECT_THAT(complaint([] { (void)OuterOptimizer::parse("nesterov(momentum=1)"); }), HasSubstr("below 1"));
  EXPECT_THAT(complaint([] { (void)OuterOptimizer::parse("sgd(momentum=0.5)"); }),
              HasSubstr("no parameter 'momentum'"));
}

TEST(OuterStep, merge_mixes_own_and_outer_parameters) {
  std::array<float, 2> const outer{8, -4};
  std::array<float, 2> own{16, 4};
  merge(1.0F, outer, own);
  EXPECT_THAT(own, ElementsAre(16, 4));
  merge(0.75F, outer, own);
  EXPECT_THAT(own, ElementsAre(14, 2));
  merge_carrying(outer, std::array<float, 2>{13, 1}, own);
  EXPECT_THAT(own, ElementsAre(9, -3));
  merge(0.0F, outer, own);
  EXPECT_THAT(own, ElementsAre(8, -4));
  EXPECT_THAT(complaint([] { require_merge_factor(1.5); }), HasSubstr("merge: alpha = 1.5 must be from 0"));
  EXPECT_THAT(complaint([] { require_merge_factor(std::nan("")); }), HasSubstr("must be from 0"));
}

TEST(OuterStep, mean_weighs_each_code_and_names_the_bad_one) {
  auto const codec = Codec::parse("identity");
  auto const code = [&](float value) {
    std::vector<std::byte> payload(4);
    (void)codec.encode(std::array<float, 1>{value}, payload);
    return payload;
  };
  auto const a = code(8);
  auto const b = code(-16);
  std::array<float, 1> mean{};
  ASSERT_TRUE(weighted_mean(codec, std::vector<CodedRow>{{a, 3}, {b, 1}}, mean));
  EXPECT_THAT(mean, ElementsAre(2));
  auto const bad = code(std::nanf(""));
  auto const refused = weighted_mean(codec, std::vector<CodedRow>{{a, 3}, {bad, 1}}, mean);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().detail, HasSubstr("contribution 1: codec identity: element 0 is flagged"));
  EXPECT_THAT(mean, ElementsAre(2));
}

TEST(OuterStep, residual_is_what_the_code_lost) {
  auto const codec = Codec::parse("int2");
  std::mt19937 random(3);
  std::normal_distribution<float> gauss;
  std::vector<float> gradient(1500);
  for (auto& value : gradient) value = gauss(random);
  std::vector<std::byte> payload(codec.payload_bytes(gradient.size()));
  ASSERT_EQ(codec.encode(gradient, payload), Codec::Encoded::finite);
  std::vector<float> residual(gradient.size());
  ASSERT_TRUE(coding_residual(codec, payload, gradient, residual));
  std::vector<float> decoded(gradient.size());
  ASSERT_TRUE(codec.decode(payload, decoded));
  for (std::size_t i = 0; i < gradient.size(); ++i) ASSERT_EQ(residual[i], gradient[i] - decoded[i]);
}

TEST(OuterStep, shards_begin_at_multiples_of_every_block_and_cover_the_fragment) {
  for (std::uint64_t const elements : {0U, 1U, 1023U, 1024U, 5000U, 123457U})
    for (int const members : {1, 2, 3, 7}) {
      std::uint64_t next = 0;
      for (int index = 0; index < members; ++index) {
        auto const shard = fragment_shard(elements, members, index);
        EXPECT_EQ(shard.begin, next);
        EXPECT_TRUE(shard.begin % Codec::kCutElements == 0 || shard.begin == elements);
        next = shard.end;
      }
      EXPECT_EQ(next, elements);
    }
}

TEST(DilocoSimulation, replicas_hold_the_same_outer_parameters_after_every_exchange) {
  for (auto const* const codec : {"identity", "e3m0", "int4", "int2"}) {
    holdfast::testing::DilocoSetup setup;
    setup.fragments = {{{0, 700}, {2000, 2100}}, {{700, 2000}}, {}};
    setup.schedule = Schedule(9, 3, Spacing::paper);
    setup.overlap = {0, 2, 5};
    setup.merge = 0.5F;
    setup.codec = Codec::parse(codec);
    setup.feedback = setup.codec.needs_error_feedback() ? 0.95F : 0.0F;
    setup.second = Codec::parse("int8");
    setup.weights = {1, 2, 3};
    std::vector<float> const start(2100, 1.0F);
    holdfast::testing::DilocoSimulation simulation(setup, start);
    std::mt19937 random(5);
    std::normal_distribution<float> gauss(0.01F, 0.1F);
    simulation.run(60, [&](int, std::int64_t, std::span<float> own) {
      for (auto& value : own) value += gauss(random);
    });
    EXPECT_EQ(simulation.exchanges().size(), 12U);  // the empty fragment is left out
    for (auto const& exchange : simulation.exchanges()) EXPECT_EQ(exchange.contributors.size(), 3U);
    auto const& replicas = simulation.replicas();
    for (std::size_t p = 0; p < 2; ++p)
      for (auto const& replica : replicas) {
        bool const is_as_far = replica.applied[p] == replicas[0].applied[p];
        EXPECT_TRUE(!is_as_far || simulation.gather(p, replica.outer) == simulation.gather(p, replicas[0].outer));
      }
  }
}

}  // namespace
}  // namespace holdfast::diloco
