#include "rules/decision.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/collectives/buffer.hpp>
#include <holdfast/runtime/error.hpp>

#include "rules/eigen.hpp"
#include "rules/subsets.hpp"

namespace holdfast::rules {
namespace {

constexpr char const* kEveryRule[] = {"mean",
                                      "median",
                                      "median(yes)",
                                      "trimmed_mean",
                                      "meamed",
                                      "phocas",
                                      "krum",
                                      "krum(neighbors=wide, power=1)",
                                      "multi_krum",
                                      "multi_krum(m=n-f-2, neighbors=wide, power=4)",
                                      "mda",
                                      "mva",
                                      "smea",
                                      "cge",
                                      "caf",
                                      "geometric_median",
                                      "geometric_median(start=zero)",
                                      "centered_clipping",
                                      "centered_clipping(threshold=3)",
                                      "nna",
                                      "nna(repeat=3)",
                                      "flag",
                                      "flag(scale=median, lambda=1)",
                                      "nnm+mean",
                                      "nnm+trimmed_mean",
                                      "nnm+median",
                                      "nnm+geometric_median",
                                      "nnm+krum",
                                      "nnm+centered_clipping",
                                      "arc+median",
                                      "arc+nnm+phocas",
                                      "bucketing+nnm+meamed",
                                      "nnm+mda",
                                      "static_clipping(3)+median",
                                      "static_clipping+nnm+trimmed_mean"};

template <class T>
struct Group {
  std::vector<std::vector<T>> rows;
  std::vector<double> weights;
  int byzantine = 0;

  Group(int n, std::size_t elements, int f, double common = 0, double noise = 1, std::uint64_t seed = 1)
      : byzantine(f) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    std::vector<double> shared(elements);
    for (auto& value : shared) value = common * normal(random);
    for (int row = 0; row < n; ++row) {
      auto& values = rows.emplace_back();
      for (auto const value : shared) values.push_back(static_cast<T>(value + noise * normal(random)));
    }
  }
  [[nodiscard]] int n() const { return static_cast<int>(rows.size()); }

  [[nodiscard]] kernels::Rows view(std::vector<std::byte const*>& pointers, std::vector<int> const& ranks,
                                   std::size_t from, std::size_t elements) const {
    pointers.clear();
    for (int const rank : ranks)
      pointers.push_back(reinterpret_cast<std::byte const*>(rows[static_cast<std::size_t>(rank)].data() + from));
    return {pointers, elements, DTypeOf<T>::value};
  }

  /// Through screening, Gram, decision and combination, over so many owners; applied in pieces of `piece` columns.
  Outcome<std::vector<T>> aggregate(std::string const& text, int owners = 1, std::size_t piece = 1U << 30U,
                                    int member = 0) const {
    auto const rule = Rule::parse(text);
    std::size_t const elements = rows.front().size();
    std::vector<std::byte const*> pointers;
    auto const everybody = RowMask::all(n());
    RowMask non_finite(n());
    std::vector<double> packed(kernels::packed_entries(n()), 0);
    for (int owner = 0; owner < owners; ++owner) {
      auto const begin = elements * static_cast<std::size_t>(owner) / static_cast<std::size_t>(owners);
      auto const end = elements * static_cast<std::size_t>(owner + 1) / static_cast<std::size_t>(owners);
      auto const shard = view(pointers, everybody.indices(), begin, end - begin);
      kernels::screen(shard, non_finite);
      std::vector<double> partial(packed.size(), 0);
      kernels::accumulate_gram(shard, nullptr, partial);
      for (std::size_t i = 0; i < packed.size(); ++i) packed[i] += partial[i];
    }
    auto const gram = GramMatrix::from_packed(n(), packed);
    auto const set = screen_contributions(rule, everybody, non_finite, byzantine, rule.needs_gram() ? &gram : nullptr);
    if (!set) return tl::unexpected<Failure>(set.error());
    DecisionInput input{*set, gram.subset(set->ranks), {}};
    if (!weights.empty())
      for (int const rank : set->ranks) input.weights.push_back(weights[static_cast<std::size_t>(rank)]);
    auto const decision = decide(rule, input);
    if (!decision) return tl::unexpected<Failure>(decision.error());
    auto const output = decision->output_of(member);
    if (!output) return fail(Errc::too_many_faulty_rows, "no output of its own");
    std::vector<T> result(elements);
    for (std::size_t from = 0; from < elements; from += piece)
      apply(*decision, view(pointers, set->ranks, from, std::min(piece, elements - from)), nullptr, *output,
            reinterpret_cast<std::byte*>(result.data() + from));
    return result;
  }
};

template <class T>
std::vector<double> honest_mean(Group<T> const& group, int honest) {
  std::vector<double> mean(group.rows.front().size(), 0);
  for (int row = 0; row < honest; ++row)
    for (std::size_t i = 0; i < mean.size(); ++i)
      mean[i] += static_cast<double>(group.rows[static_cast<std::size_t>(row)][i]) / honest;
  return mean;
}

double norm(std::vector<double> const& x) {
  double sum = 0;
  for (double const value : x) sum += value * value;
  return std::sqrt(sum);
}

template <class T>
double distance(std::vector<T> const& a, std::vector<double> const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

TEST(Apply, gives_the_same_bits_however_the_columns_are_cut) {
  Group<float> const group(9, 5000, 2);
  for (auto const* rule : kEveryRule) {
    auto const whole = group.aggregate(rule);
    ASSERT_TRUE(whole.has_value()) << rule << ": " << whole.error().detail;
    for (std::size_t const piece : {1U, 37U, 1024U, 4096U}) EXPECT_EQ(*group.aggregate(rule, 1, piece), *whole) << rule;
  }
}

TEST(Apply, over_shards_agrees_with_one_owner) {
  Group<float> const group(9, 5000, 2);
  for (auto const* rule : kEveryRule) {
    auto const whole = group.aggregate(rule);
    for (int const owners : {2, 3, 4, 7}) {
      auto const sharded = group.aggregate(rule, owners);
      ASSERT_TRUE(sharded.has_value());
      for (std::size_t i = 0; i < whole->size(); ++i) ASSERT_NEAR((*sharded)[i], (*whole)[i], 1e-6) << rule;
    }
  }
}

TEST(Apply, mixes_16_bit_rows_in_float32) {
  auto const rule = Rule::parse("nnm+median");
  std::vector<std::vector<std::uint16_t>> rows;
  std::vector<std::vector<float>> wide;
  std::mt19937 random(3);
  for (int row = 0; row < 5; ++row) {
    rows.emplace_back(3000);
    for (auto& value : rows.back()) value = static_cast<std::uint16_t>(0x3F00U ^ (random() & 0x80FFU));
    wide.emplace_back(3000);
    kernels::widen(reinterpret_cast<std::byte const*>(rows.back().data()), 3000, DType::bfloat16, wide.back().data());
  }
  std::vector<std::byte const*> narrow_rows;
  std::vector<std::byte const*> wide_rows;
  for (auto const& row : rows) narrow_rows.push_back(reinterpret_cast<std::byte const*>(row.data()));
  for (auto const& row : wide) wide_rows.push_back(reinterpret_cast<std::byte const*>(row.data()));
  std::vector<double> packed(kernels::packed_entries(5), 0);
  kernels::accumulate_gram({narrow_rows, 3000, DType::bfloat16}, nullptr, packed);
  auto const set = screen_contributions(rule, RowMask::all(5), RowMask(5), 1);
  auto const decision = decide(rule, {*set, GramMatrix::from_packed(5, packed), {}});
  std::vector<std::uint16_t> result(3000);
  std::vector<float> wide_result(3000);
  std::vector<std::uint16_t> expected(3000);
  apply(*decision, {narrow_rows, 3000, DType::bfloat16}, nullptr, 0, reinterpret_cast<std::byte*>(result.data()));
  apply(*decision, {wide_rows, 3000, DType::float32}, nullptr, 0, reinterpret_cast<std::byte*>(wide_result.data()));
  kernels::narrow(wide_result.data(), 3000, DType::bfloat16, reinterpret_cast<std::byte*>(expected.data()));
  EXPECT_EQ(result, expected);
}

TEST(Decide, with_f_of_zero_averages_where_the_rule_is_mean_like) {
  Group<float> const group(6, 300, 0);
  auto const mean = group.aggregate("mean");
  for (auto const* rule : {"trimmed_mean", "meamed", "phocas", "multi_krum", "mda", "mva", "smea", "cge", "caf",
                           "bulyan", "nna", "nnm+mean", "arc+mean"}) {
    auto const result = group.aggregate(rule);
    for (std::size_t i = 0; i < mean->size(); ++i) EXPECT_NEAR((*result)[i], (*mean)[i], 1e-6) << rule;
  }
  EXPECT_EQ(*group.aggregate("multi_krum"), *mean);
  EXPECT_EQ(*group.aggregate("nnm+mean"), *mean);
}

TEST(Decide, of_equal_rows_gives_the_row) {
  Group<float> group(7, 50, 2);
  for (auto& row : group.rows) row = group.rows.front();
  for (std::string const rule : kEveryRule) {
    if (rule.find("clipping") != std::string::npos || rule.rfind("flag", 0) == 0) continue;
    if (!Rule::parse(rule).check_bounds(group.n(), group.byzantine)) continue;
    auto const result = group.aggregate(rule);
    ASSERT_TRUE(result.has_value());
    for (std::size_t i = 0; i < 50; ++i) EXPECT_NEAR((*result)[i], group.rows[0][i], 2e-6) << rule;
  }
}

TEST(Decide, of_a_single_row_gives_the_row) {
  Group<float> const group(1, 50, 0);
  for (std::string const rule : kEveryRule) {
    auto const result = group.aggregate(rule);
    ASSERT_TRUE(result.has_value()) << rule << result.error().detail;
    if (rule.find("static") == std::string::npos && rule.rfind("flag", 0) != 0) {
      EXPECT_EQ(*result, group.rows[0]) << rule;
    }
  }
}

TEST(Decide, breaks_ties_in_favour_of_the_lower_rank) {
  Group<double> group(6, 2, 1);
  group.rows = {{0, 0}, {4, 0}, {0, 0}, {4, 0}, {0, 0}, {4, 0}};
  EXPECT_EQ(*group.aggregate("krum"), (std::vector<double>{0, 0}));
  std::swap(group.rows[0], group.rows[1]);
  EXPECT_EQ(*group.aggregate("krum"), (std::vector<double>{4, 0}));
}

TEST(Decide, sees_a_tie_between_mixed_rows_that_are_the_same) {
  // Two neighbourhoods of four: mixed, their rows have the same distances, and the first of them must win.
  Group<double> group(8, 3, 2);
  std::vector<double> const here{.1, .2, .3};
  std::vector<double> const there{-.7, .4, .9};
  for (std::size_t row = 0; row < 8; ++row) group.rows[row] = row % 2 == 0 ? here : there;
  auto const of_even = *group.aggregate("nnm+krum(neighbors=wide)");
  std::swap(group.rows[0], group.rows[1]);
  std::swap(group.rows[2], group.rows[3]);
  auto const of_odd = *group.aggregate("nnm+krum(neighbors=wide)");
  EXPECT_LT(distance(of_even, here), distance(of_even, there));
  EXPECT_LT(distance(of_odd, there), distance(of_odd, here));
}

TEST(Decide, keeps_the_digits_of_a_distance_that_is_short_beside_the_rows) {
  // From a start of zero the first point lies a millionth away from the row of zeros: with that little smoothing the
  // distance decides how much the row counts. The direct iteration, on the rows themselves, is the reference.
  Group<double> group(7, 4, 2);
  group.rows[3].assign(4, 0);
  constexpr double kSmoothing = 1e-6;
  std::vector<double> z(4, 0);
  for (int iteration = 0; iteration < 8; ++iteration) {
    std::vector<double> sum(4, 0);
    double total = 0;
    for (auto const& row : group.rows) {
      double const weight = 1 / std::max(distance(row, z), kSmoothing);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weight * row[i];
      total += weight;
    }
    for (std::size_t i = 0; i < z.size(); ++i) z[i] = sum[i] / total;
  }
  auto const result = *group.aggregate("geometric_median(start=zero, absolute_smoothing=1e-6, iterations=8)");
  EXPECT_LT(distance(result, z), 1e-12);
}

TEST(Decide, chooses_rightly_among_rows_that_share_a_large_common_vector) {
  Group<float> group(8, 20'000, 2, 1, 1e-3);
  // Two rows a little further out than honest ones: fp32 products would not see the difference.
  for (int row : {2, 5})
    for (std::size_t i = 0; i < 20'000; ++i)
      group.rows[static_cast<std::size_t>(row)][i] += i % 2 == 0 ? 4e-3F : -4e-3F;
  Group<double> exact(8, 1, 2);
  for (std::size_t row = 0; row < 8; ++row) exact.rows[row].assign(group.rows[row].begin(), group.rows[row].end());
  for (auto const* rule : {"krum", "multi_krum", "nna", "nnm+trimmed_mean", "geometric_median"}) {
    auto const result = group.aggregate(rule, 4);
    auto const expected = exact.aggregate(rule);
    ASSERT_TRUE(result.has_value() && expected.has_value());
    EXPECT_LT(distance(*result, *expected) / norm(*expected), 1e-6) << rule;
  }
}

TEST(Decide, stays_near_the_honest_rows_when_others_are_enormous) {
  Group<float> group(9, 2000, 2);
  for (std::size_t i = 0; i < 2000; ++i) group.rows[7][i] = group.rows[8][i] = i % 3 == 0 ? 1e8F : -1e8F;
  auto const mean = honest_mean(group, 7);
  double spread = 0;
  for (int row = 0; row < 7; ++row)
    spread = std::max(spread, distance(group.rows[static_cast<std::size_t>(row)], mean));
  for (std::string const rule : kEveryRule) {
    if (rule == "mean" || rule == "nnm+mean") continue;
    // Of five buckets two are bad: more than nnm before a rule for f = 2 of 5 promises to keep within this distance.
    if (rule.rfind("bucketing", 0) == 0) continue;
    auto const result = group.aggregate(rule);
    ASSERT_TRUE(result.has_value());
    EXPECT_LT(distance(*result, mean), 3 * spread) << rule;
  }
}

TEST(Decide, clamps_the_weight_that_a_member_claims) {
  Group<float> group(5, 1, 1);
  group.rows = {{1}, {1}, {1}, {1}, {10}};
  group.weights = {1, 1, 1, 1, 1e9};
  EXPECT_NEAR(group.aggregate("mean")->front(), (4 + 2 * 10) / 6.0, 1e-6);
  group.byzantine = 0;
  EXPECT_NEAR(group.aggregate("mean")->front(), 10, 1e-6);
  group.weights = {1, 3, 0, 0, 0};
  group.rows[1] = {5};
  EXPECT_NEAR(group.aggregate("mean")->front(), 4, 1e-6);
  group.weights = {0, 0, 0, 0, 0};
  EXPECT_FALSE(group.aggregate("mean").has_value());
}

TEST(Decide, gives_each_member_its_own_neighbourhood) {
  Group<double> group(5, 1, 2);
  group.rows = {{0}, {1}, {2}, {10}, {11}};
  EXPECT_EQ(group.aggregate("nna", 1, 100, 0)->front(), 1);
  EXPECT_NEAR(group.aggregate("nna", 1, 100, 4)->front(), 23.0 / 3, 1e-12);
}

TEST(Screening, drops_bad_rows_and_counts_them_as_faults) {
  for (std::string const rule : kEveryRule) {
    Group<float> group(9, 40, 2);
    Group<float> rest(8, 40, 1);
    rest.rows.assign(group.rows.begin(), group.rows.end() - 1);
    group.rows[8][13] = std::numeric_limits<float>::quiet_NaN();
    auto const result = group.aggregate(rule);
    ASSERT_TRUE(result.has_value()) << rule;
    EXPECT_EQ(*result, *rest.aggregate(rule)) << rule;
  }
}

TEST(Screening, fails_loudly_when_more_rows_are_bad_than_f) {
  Group<float> group(8, 40, 1);
  group.rows[2][0] = std::numeric_limits<float>::infinity();
  group.rows[6][39] = std::numeric_limits<float>::quiet_NaN();
  for (auto const* rule : kEveryRule) {
    auto const result = group.aggregate(rule);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, Errc::too_many_faulty_rows);
    EXPECT_THAT(result.error().detail, testing::HasSubstr("2, 6"));
  }
  group.byzantine = 7;
  EXPECT_EQ(group.aggregate("median").error().code, Errc::f_out_of_bounds) << "bounds come first";
}

TEST(Screening, leaves_a_missing_row_out_of_n_but_not_of_f) {
  auto const rule = Rule::parse("krum");
  auto arrived = RowMask::all(8);
  arrived.reset(3);
  auto const set = screen_contributions(rule, arrived, RowMask(8), 2);
  ASSERT_TRUE(set.has_value());
  EXPECT_EQ(set->contributions(), 7);
  EXPECT_EQ(set->byzantine, 2);
  EXPECT_EQ(set->missing.indices(), (std::vector<int>{3}));
  arrived.reset(4);
  EXPECT_EQ(screen_contributions(rule, arrived, RowMask(8), 2).error().code, Errc::f_out_of_bounds);
  EXPECT_EQ(screen_contributions(rule, RowMask(8), RowMask(8), 0).error().code, Errc::f_out_of_bounds);
}

TEST(Screening, drops_a_finite_fp64_row_whose_square_is_not) {
  Group<double> group(6, 3, 1);
  group.rows[4][0] = 1e200;
  Group<double> rest = group;
  rest.rows.erase(rest.rows.begin() + 4);
  rest.byzantine = 0;
  EXPECT_EQ(*group.aggregate("geometric_median"), *rest.aggregate("geometric_median"));
}

TEST(Screening, gives_a_screened_member_no_output_of_its_own) {
  Group<float> group(5, 3, 1);
  group.rows[2][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(group.aggregate("nna", 1, 100, 2).has_value());
  EXPECT_TRUE(group.aggregate("nna", 1, 100, 3).has_value());
  EXPECT_FALSE(group.aggregate("nna(2)").has_value());
}

TEST(Decide, of_no_elements_is_empty) {
  Group<float> const group(5, 0, 1);
  for (auto const* rule : kEveryRule) {
    auto const result = group.aggregate(rule, 3);
    ASSERT_TRUE(result.has_value()) << rule << ": " << result.error().detail;
    EXPECT_TRUE(result->empty());
  }
}

/// The best subset of n-f rows by looking at each, in lexicographic order.
template <class Cost>
std::vector<int> best_subset(int n, int size, Cost const& cost) {
  std::vector<int> best;
  double least = std::numeric_limits<double>::infinity();
  auto subset = first_numbers(size);
  do {
    double const value = cost(subset);
    if (value < least) {
      least = value;
      best = subset;
    }
  } while (next_subset(subset, n));
  return best;
}

std::vector<int> chosen_rows(std::string const& text, GramMatrix const& gram, int byzantine) {
  auto const rule = Rule::parse(text);
  auto const set = screen_contributions(rule, RowMask::all(gram.rows()), RowMask(gram.rows()), byzantine, &gram);
  auto const decision = decide(rule, {*set, gram, {}});
  std::vector<int> chosen;
  for (int row = 0; row < gram.rows(); ++row)
    if (decision->outputs[0].coefficients[static_cast<std::size_t>(row)] != 0) chosen.push_back(row);
  return chosen;
}

GramMatrix gram_of(std::vector<std::vector<double>> const& rows) {
  GramMatrix gram(static_cast<int>(rows.size()));
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < rows.size(); ++j)
      for (std::size_t k = 0; k < rows[i].size(); ++k)
        gram(static_cast<int>(i), static_cast<int>(j)) += rows[i][k] * rows[j][k];
  return gram;
}

TEST(Subsets, are_visited_in_lexicographic_order) {
  auto subset = first_numbers(2);
  std::vector<std::vector<int>> seen;
  do seen.push_back(subset);
  while (next_subset(subset, 4));
  EXPECT_EQ(seen, (std::vector<std::vector<int>>{{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}}));
  EXPECT_EQ(binomial(16, 5), 4368U);
  EXPECT_EQ(binomial(5, 0), 1U);
  EXPECT_EQ(binomial(1000, 400), std::uint64_t{1} << 62U);
}

TEST(SubsetRules, find_what_enumeration_finds) {
  std::mt19937_64 random(9);
  for (int n = 3; n <= 11; ++n)
    for (int f = 1; 2 * f < n; ++f)
      for (int trial = 0; trial < 4; ++trial) {
        // Small whole numbers in the second half of the trials: many equal distances, and rows that occur twice.
        std::vector<std::vector<double>> rows(static_cast<std::size_t>(n));
        for (auto& row : rows)
          for (int k = 0; k < 3; ++k)
            row.push_back(trial < 2 ? static_cast<double>(random() % 100'000) / 1000.0
                                    : static_cast<double>(random() % 3));
        auto const gram = gram_of(rows);
        auto const distances = gram.squared_distances();
        auto const diameter = [&](std::vector<int> const& subset) {
          double widest = 0;
          for (int const i : subset)
            for (int const j : subset) widest = std::max(widest, distances(i, j));
          return widest;
        };
        auto const scatter = [&](std::vector<int> const& subset) {
          double sum = 0;
          for (int const i : subset)
            for (int const j : subset) sum += distances(i, j);
          return sum;
        };
        EXPECT_EQ(chosen_rows("mda", gram, f), best_subset(n, n - f, diameter)) << n << ", " << f;
        auto const by_scatter = best_subset(n, n - f, scatter);
        EXPECT_NEAR(scatter(chosen_rows("mva", gram, f)), scatter(by_scatter), 1e-9 * (1 + scatter(by_scatter)));
        if (trial < 2) {
          EXPECT_EQ(chosen_rows("mva", gram, f), by_scatter) << n << ", " << f;
        }
        auto const top_eigenvalue = [&](std::vector<int> const& subset) {
          auto const size = static_cast<int>(subset.size());
          GramMatrix centred(size);
          std::vector<double> mean(3, 0);
          for (int const i : subset)
            for (std::size_t k = 0; k < 3; ++k) mean[k] += rows[static_cast<std::size_t>(i)][k] / size;
          for (int a = 0; a < size; ++a)
            for (int b = 0; b < size; ++b)
              for (std::size_t k = 0; k < 3; ++k)
                centred(a, b) += (rows[static_cast<std::size_t>(subset[static_cast<std::size_t>(a)])][k] - mean[k]) *
                                 (rows[static_cast<std::size_t>(subset[static_cast<std::size_t>(b)])][k] - mean[k]);
          return symmetric_eigen(centred).values.front();
        };
        double const least = top_eigenvalue(best_subset(n, n - f, top_eigenvalue));
        EXPECT_NEAR(top_eigenvalue(chosen_rows("smea", gram, f)), least, 1e-9 * (1 + least)) << n << ", " << f;
      }
}

TEST(SubsetRules, are_quick_where_there_are_millions_of_subsets) {
  Group<double> const group(30, 40, 10);
  auto const gram = gram_of(group.rows);
  auto const start = std::chrono::steady_clock::now();
  EXPECT_EQ(chosen_rows("mda", gram, 10).size(), 20U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(SubsetRules, refuse_what_would_take_too_long) {
  auto const refused = Rule::parse("smea").check_bounds(40, 15);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().detail, testing::HasSubstr("40225345056"));
}

TEST(Caf, ends_for_rows_of_any_size) {
  for (double const size : {1e3, 1e8, 1e100}) {
    Group<double> group(9, 30, 3);
    for (int row = 6; row < 9; ++row)
      for (std::size_t i = 0; i < 30; ++i) group.rows[static_cast<std::size_t>(row)][i] = i % 2 == 0 ? size : -size;
    auto const result = group.aggregate("caf");
    ASSERT_TRUE(result.has_value());
    EXPECT_LT(distance(*result, honest_mean(group, 6)), 6) << size;
  }
}

TEST(Bulyan, needs_its_bound_and_takes_the_middle_of_what_krum_picks) {
  Group<double> group(7, 1, 1);
  group.rows = {{1}, {2}, {3}, {4}, {5}, {6}, {1000}};
  auto const result = group.aggregate("bulyan");
  ASSERT_TRUE(result.has_value());
  EXPECT_GE(result->front(), 2);
  EXPECT_LE(result->front(), 5);
  group.byzantine = 2;
  EXPECT_EQ(group.aggregate("bulyan").error().code, Errc::f_out_of_bounds);
}

TEST(Bucketing, averages_groups_of_a_shuffle_that_the_key_names) {
  auto const rule = Rule::parse("bucketing(3)+mean");
  EXPECT_FALSE(rule.needs_gram());
  auto const set = screen_contributions(rule, RowMask::all(8), RowMask(8), 0);
  auto const mixture_for = [&](std::uint64_t key) {
    DecisionInput input{*set, {}, {}};
    input.random_key = key;
    return *decide_mixture(rule, input);
  };
  auto const mixture = mixture_for(7);
  ASSERT_EQ(mixture.size(), 3U);
  std::vector<double> column(8, 0);
  for (auto const& bucket : mixture) {
    auto const rows = 8 - std::count(bucket.coefficients.begin(), bucket.coefficients.end(), 0.0);
    EXPECT_TRUE(rows == 3 || rows == 2);
    for (std::size_t row = 0; row < 8; ++row) column[row] += bucket.coefficients[row] * static_cast<double>(rows);
  }
  for (double const times : column) EXPECT_NEAR(times, 1, 1e-12) << "each row is in one bucket";
  EXPECT_EQ(mixture_for(7)[0].coefficients, mixture[0].coefficients);
  bool differs = false;
  for (std::uint64_t key = 8; key < 12; ++key) differs |= mixture_for(key)[0].coefficients != mixture[0].coefficients;
  EXPECT_TRUE(differs);
}

TEST(Bucketing, is_held_to_the_bound_for_the_buckets) {
  EXPECT_TRUE(Rule::parse("bucketing(2)+trimmed_mean").check_bounds(9, 2).has_value());
  EXPECT_FALSE(Rule::parse("bucketing(2)+trimmed_mean").check_bounds(8, 2).has_value());
  EXPECT_THROW((void)Rule::parse("bucketing+nna"), Error);
}

TEST(Arc, shortens_the_longest_rows_to_the_next) {
  Group<double> group(6, 1, 1);  // k = floor(2 * 1 * 5 / 6) = 1
  group.rows = {{1}, {2}, {-3}, {100}, {-2}, {1}};
  EXPECT_NEAR(group.aggregate("arc+mean")->front(), (1 + 2 - 3 + 3 - 2 + 1) / 6.0, 1e-12);
}

TEST(UnusedRows, are_those_that_the_rule_gave_no_weight) {
  Group<double> group(6, 1, 1);
  group.rows = {{0}, {1}, {2}, {3}, {4}, {100}};
  auto const unused = [&](std::string const& text) {
    auto const rule = Rule::parse(text);
    auto const gram = gram_of(group.rows);
    auto const set = screen_contributions(rule, RowMask::all(6), RowMask(6), 1, &gram);
    return decide(rule, {*set, gram, {}})->unused_rows();
  };
  EXPECT_EQ(unused("mda"), (std::vector<int>{5}));
  EXPECT_EQ(unused("krum").size(), 5U);
  EXPECT_EQ(unused("nnm+trimmed_mean"), (std::vector<int>{5})) << "it is mixed into its own row alone";
  EXPECT_EQ(unused("nna"), (std::vector<int>{5}));
  EXPECT_TRUE(unused("trimmed_mean").empty()) << "it may be used in some coordinates";
  EXPECT_TRUE(unused("arc+median").empty());
  EXPECT_TRUE(unused("geometric_median").empty());
}

TEST(Eigen, reconstructs_a_symmetric_matrix) {
  for (int const n : {1, 2, 7, 20}) {
    std::mt19937_64 random(4);
    std::normal_distribution<double> normal;
    GramMatrix matrix(n);
    for (int i = 0; i < n; ++i)
      for (int j = i; j < n; ++j) matrix(i, j) = matrix(j, i) = normal(random);
    auto const eigen = symmetric_eigen(matrix);
    for (int i = 0; i < n; ++i) {
      if (i > 0) {
        EXPECT_LE(eigen.values[static_cast<std::size_t>(i)], eigen.values[static_cast<std::size_t>(i - 1)]);
      }
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < eigen.values.size(); ++k)
          sum += eigen.values[k] * eigen.vectors[k][static_cast<std::size_t>(i)] *
                 eigen.vectors[k][static_cast<std::size_t>(j)];
        EXPECT_NEAR(sum, matrix(i, j), 1e-12);
      }
    }
  }
}

TEST(Eigen, finds_orthonormal_left_singular_vectors) {
  Matrix const rows{{3, 0, 0, 0}, {1, 2, 0, 0}, {1, 2, 1e-6, 0}};
  auto const vectors = left_singular_vectors(rows);
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = 0; b < 3; ++b) {
      double product = 0;
      for (std::size_t k = 0; k < 3; ++k) product += vectors[a][k] * vectors[b][k];
      EXPECT_NEAR(product, a == b ? 1 : 0, 1e-14);
    }
}

}  // namespace
}  // namespace holdfast::rules
