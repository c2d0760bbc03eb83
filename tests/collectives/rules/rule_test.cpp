#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string refusal(std::string const& text) {
  try {
    (void)Rule::parse(text);
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::bad_argument);
    return error.what();
  }
  return {};
}

TEST(Rule, reads_back_its_own_text_without_defaults) {
  for (auto const* text :
       {"mean", "median(lower=yes)", "nnm+trimmed_mean", "krum(neighbors=wide, power=1)", "multi_krum(m=n-f-2)",
        "multi_krum(m=3)", "centered_clipping(threshold=10)", "centered_clipping(center=median, tolerance=1e-05)",
        "static_clipping(c=1.5)+nnm+geometric_median(start=zero, iterations=8)", "nna(pivot=2, repeat=3)",
        "flag(dimension=4, lambda=0.5, scale=median, pairs=raw)"}) {
    EXPECT_EQ(Rule::parse(text).text(), text);
  }
  EXPECT_EQ(Rule::parse(" geometric_median( iterations = 32 ) ").text(), "geometric_median");
  EXPECT_EQ(Rule::parse("static_clipping(2.0)+mean").text(), "static_clipping+mean");
  EXPECT_EQ(Rule::parse("nna(0)").text(), "nna(pivot=0)");
}

TEST(Rule, names_an_unknown_rule_the_nearest_one_and_all_valid_ones) {
  auto const message = refusal("trimed_mean");
  EXPECT_THAT(message, AllOf(HasSubstr("'trimed_mean'"), HasSubstr("did you mean 'trimmed_mean'"),
                             HasSubstr("mean, median"), HasSubstr("flag"), HasSubstr("nnm, bucketing")));
}

TEST(Rule, names_an_unknown_parameter_and_the_valid_ones) {
  EXPECT_THAT(refusal("geometric_median(iteration=3)"),
              AllOf(HasSubstr("'iteration'"), HasSubstr("did you mean 'iterations'"), HasSubstr("smoothing = 0.1")));
  EXPECT_THAT(refusal("mean(x=1)"), HasSubstr("no parameters"));
  EXPECT_THAT(refusal("krum(power=3)"), HasSubstr("1, 2, 4"));
  EXPECT_THAT(refusal("multi_krum(2.5)"), HasSubstr("whole number"));
  EXPECT_THAT(refusal("geometric_median(smoothing=0)"), HasSubstr("above 0"));
  EXPECT_THAT(refusal("geometric_median(smoothing=nan)"), HasSubstr("above 0"));
  EXPECT_THAT(refusal("nna(1, 2)"), HasSubstr("'2'"));
  EXPECT_THAT(refusal("nna(pivot=1, pivot=2)"), HasSubstr("twice"));
}

TEST(Rule, is_mixers_then_one_final_rule) {
  EXPECT_THAT(refusal("nnm"), HasSubstr("final rule"));
  EXPECT_THAT(refusal("mean+nnm"), HasSubstr("must stand last"));
  EXPECT_THAT(refusal("mean+median"), HasSubstr("must stand last"));
  EXPECT_THAT(refusal(""), HasSubstr("not a rule"));
  EXPECT_THAT(refusal("nnm+"), HasSubstr("not a rule"));
  EXPECT_THAT(refusal("static_clipping+centered_clipping"), HasSubstr("cannot be combined"));
}

TEST(Rule, says_what_it_needs) {
  EXPECT_FALSE(Rule::parse("mean").needs_gram());
  EXPECT_TRUE(Rule::parse("mean").uses_weights());
  EXPECT_FALSE(Rule::parse("median").needs_gram());
  EXPECT_EQ(Rule::parse("median").kind(), RuleKind::coordinate);
  EXPECT_EQ(Rule::parse("nnm+median").kind(), RuleKind::both);
  EXPECT_TRUE(Rule::parse("nnm+median").needs_gram());
  EXPECT_EQ(Rule::parse("nnm+krum").kind(), RuleKind::linear);
  EXPECT_FALSE(Rule::parse("krum").uses_weights());
  EXPECT_TRUE(Rule::parse("centered_clipping").needs_center());
  EXPECT_FALSE(Rule::parse("geometric_median").needs_center());
  EXPECT_TRUE(Rule::parse("nna").is_per_member());
  EXPECT_FALSE(Rule::parse("nna(0)").is_per_member());
  EXPECT_EQ(Rule::parse("nnm+mean").warnings().size(), 1U);
  EXPECT_TRUE(Rule::parse("nnm+trimmed_mean").warnings().empty());
}

struct BoundCase {
  char const* rule;
  int contributions;
  int most;  ///< largest f that is allowed, -1 for none
};

class Bounds : public testing::TestWithParam<BoundCase> {};

TEST_P(Bounds, hold_up_to_the_largest_f_and_not_beyond) {
  auto const rule = Rule::parse(GetParam().rule);
  int const n = GetParam().contributions;
  for (int f = 0; f <= n + 1; ++f) {
    auto const checked = rule.check_bounds(n, f);
    EXPECT_EQ(checked.has_value(), f <= GetParam().most) << rule.text() << " n = " << n << " f = " << f;
    if (checked) continue;
    EXPECT_EQ(checked.error().code, Errc::f_out_of_bounds);
    EXPECT_THAT(checked.error().detail,
                AllOf(HasSubstr("f = " + std::to_string(f)), HasSubstr("n = " + std::to_string(n))));
  }
  EXPECT_FALSE(rule.check_bounds(n, -1).has_value());
}

INSTANTIATE_TEST_SUITE_P(Rules, Bounds,
                         testing::Values(BoundCase{"mean", 3, 2}, BoundCase{"median", 5, 2}, BoundCase{"median", 4, 1},
                                         BoundCase{"trimmed_mean", 2, 0}, BoundCase{"krum", 7, 2},
                                         BoundCase{"krum", 3, 0}, BoundCase{"krum", 2, -1}, BoundCase{"krum", 1, 0},
                                         BoundCase{"multi_krum(4)", 9, 3}, BoundCase{"multi_krum(8)", 9, 1},
                                         BoundCase{"geometric_median", 5, 2}, BoundCase{"centered_clipping", 4, 1},
                                         BoundCase{"nna", 3, 1}, BoundCase{"flag", 4, 3}, BoundCase{"nnm+mean", 4, 1},
                                         BoundCase{"static_clipping+mean", 4, 3}, BoundCase{"nnm+krum", 7, 2}));

TEST(Rule, lists_every_rule_with_its_bound_and_defaults) {
  auto const all = Rule::all();
  EXPECT_EQ(all.front().name, "mean");
  for (auto const& description : all) {
    EXPECT_FALSE(description.bound.empty());
    EXPECT_FALSE(description.source.empty());
    EXPECT_NO_THROW((void)Rule::parse(description.is_mixer ? description.name + "+mean" : description.name));
  }
}

}  // namespace
}  // namespace holdfast
