#include <cmath>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/attacks.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

struct Rows {
  std::vector<float> own{1, -2, 3, 4};
  std::vector<std::vector<float>> honest{{1, 2, 3, 4}, {3, 2, 1, 0}, {2, 2, 2, 5}};
  std::vector<std::span<float const>> views{honest.begin(), honest.end()};

  std::optional<Rule> rule;
  mutable AttackMemory memory;

  [[nodiscard]] std::vector<float> attack(std::string const& text, std::uint64_t step = 0, std::uint64_t member = 0,
                                          std::uint64_t seed = 1) const {
    AttackInput input;
    input.own = own;
    input.honest = views;
    input.contributions = 4;
    input.byzantine = 1;
    input.step = step;
    input.member = member;
    input.seed = seed;
    input.colluding = std::span(views).first(2);
    input.rule = rule ? &*rule : nullptr;
    input.memory = &memory;
    std::vector<float> out(own.size());
    Attack::parse(text).make_row(input, out);
    return out;
  }
};

TEST(Attack, follows_its_formula) {
  Rows const rows;
  EXPECT_EQ(rows.attack("sign_flip"), (std::vector<float>{-2, -2, -2, -3}));
  EXPECT_EQ(rows.attack("sign_flip_own"), (std::vector<float>{-1, 2, -3, -4}));
  EXPECT_EQ(rows.attack("sign_flip_scaled(10)"), (std::vector<float>{-20, -20, -20, -30}));
  EXPECT_EQ(rows.attack("mimic(1)"), rows.honest[1]);
  EXPECT_EQ(rows.attack("label_flip"), rows.own);
  EXPECT_EQ(rows.attack("zero"), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(rows.attack("alie(2)")[0], 4);
  EXPECT_TRUE(std::isnan(rows.attack("nan")[3]));
  EXPECT_TRUE(std::isinf(rows.attack("inf(entry)")[2]));
  EXPECT_EQ(rows.attack("inf(entry)")[1], -2);
}

TEST(Attack, repeats_itself_for_the_same_seed_step_and_member_only) {
  Rows const rows;
  for (auto const* text : {"gaussian(0, 10)", "uniform"}) {
    auto const row = rows.attack(text, 5, 2, 9);
    EXPECT_EQ(rows.attack(text, 5, 2, 9), row);
    EXPECT_NE(rows.attack(text, 6, 2, 9), row);
    EXPECT_NE(rows.attack(text, 5, 3, 9), row);
    EXPECT_NE(rows.attack(text, 5, 2, 8), row);
  }
  for (float const value : rows.attack("uniform")) EXPECT_TRUE(value >= 0 && value < 1);
  EXPECT_EQ(rows.attack("drift", 1), rows.attack("drift", 2));
  EXPECT_EQ(rows.attack("constant_direction", 1), rows.attack("constant_direction", 2));
}

TEST(Attack, draws_normal_numbers) {
  std::vector<float> const own(20'000);
  std::vector<float> out(own.size());
  AttackInput input;
  input.own = own;
  Attack::parse("gaussian(3, 2)").make_row(input, out);
  double mean = 0;
  double square = 0;
  for (float const value : out) mean += value / static_cast<double>(out.size());
  for (float const value : out) square += (value - mean) * (value - mean) / static_cast<double>(out.size());
  EXPECT_NEAR(mean, 3, 0.1);
  EXPECT_NEAR(std::sqrt(square), 2, 0.1);
}

TEST(Attack, deceives_the_rule_that_it_knows) {
  Rows rows;
  EXPECT_THROW((void)rows.attack("optimal_alie"), Error);
  rows.rule = Rule::parse("mean");
  // Against the mean the longer row is always the better one: the search goes as far as its evaluations allow.
  auto const few = rows.attack("optimal_inner_product(evals=3)");
  auto const more = rows.attack("optimal_inner_product(evals=6)");
  EXPECT_LT(more[3], few[3]);
  rows.rule = Rule::parse("median");
  EXPECT_GT(rows.attack("optimal_inner_product(evals=6)")[3], more[3]) << "a far row gains nothing against the median";
}

TEST(Attack, mimics_the_row_farthest_along_the_direction_of_most_variance) {
  Rows rows;
  rows.honest = {{0, 0, 0, 0}, {0, 0, 0.1F, 0}, {0, 0, 9, 0}, {0.2F, 0, -8, 0}};
  rows.views.assign(rows.honest.begin(), rows.honest.end());
  auto const first = rows.attack("mimic(center=step)");
  EXPECT_TRUE(first == rows.honest[2] || first == rows.honest[3]);
  EXPECT_EQ(rows.attack("mimic(center=step)"), first);
  EXPECT_EQ(rows.memory.steps, 2U);
  rows.memory = {};
  auto const frozen = rows.attack("mimic(warm_up=1, center=step)");
  rows.honest[2][2] = -20;
  rows.honest[3][2] = 20;
  rows.views.assign(rows.honest.begin(), rows.honest.end());
  auto const after = rows.attack("mimic(warm_up=1, center=step)");
  EXPECT_EQ(std::abs(after[2]), 20) << "the same member is copied";
  EXPECT_EQ(after[2]<0, frozen[2]> 0);
}

TEST(Attack, sends_what_it_would_have_sent_long_ago) {
  Rows rows;
  rows.own = {1, 1, 1, 1};
  EXPECT_EQ(rows.attack("delayed(2)")[0], 1);
  rows.own = {2, 2, 2, 2};
  EXPECT_EQ(rows.attack("delayed(2)")[0], 1);
  rows.own = {3, 3, 3, 3};
  EXPECT_EQ(rows.attack("delayed(2)")[0], 1);
  rows.own = {4, 4, 4, 4};
  EXPECT_EQ(rows.attack("delayed(2)")[0], 2);
}

TEST(Attack, colludes_with_the_rows_of_the_attackers_alone) {
  Rows const rows;
  EXPECT_EQ(Attack::parse("alie_colluding").knowledge(), AttackKnowledge::colluding);
  EXPECT_NEAR(rows.attack("alie_colluding(1)")[0], 2 + std::sqrt(2.0), 1e-6);
}

TEST(Attack, votes_at_random_or_against_the_others) {
  Rows rows;
  for (float const vote : rows.attack("random_vote")) EXPECT_EQ(std::abs(vote), 1);
  EXPECT_EQ(rows.attack("inverse_vote"), (std::vector<float>{-1, -1, -1, -1}));
}

TEST(Attack, says_what_is_wrong_with_its_text_or_input) {
  auto const message = [](std::string const& text) {
    try {
      (void)Attack::parse(text);
    } catch (Error const& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message("sign_flp"),
              testing::AllOf(testing::HasSubstr("did you mean 'sign_flip'"), testing::HasSubstr("min_max")));
  EXPECT_THAT(message("alie(x=1)"), testing::HasSubstr("z = -1.5"));
  std::vector<float> own(3);
  AttackInput input;
  input.own = own;
  EXPECT_THROW(Attack::parse("sign_flip").make_row(input, own), Error);
  std::vector<float> shorter(2);
  EXPECT_THROW(Attack::parse("zero").make_row(input, shorter), Error);
}

TEST(Attack, tells_what_it_needs) {
  EXPECT_EQ(Attack::parse("alie").knowledge(), AttackKnowledge::omniscient);
  EXPECT_EQ(Attack::parse("gaussian").knowledge(), AttackKnowledge::local);
  EXPECT_TRUE(Attack::parse("label_flip").flips_labels());
  EXPECT_EQ(Attack::parse("alie( -1.5 )").text(), "alie");
  for (auto const& description : Attack::all()) EXPECT_NO_THROW((void)Attack::parse(description.name));
}

}  // namespace
}  // namespace holdfast
