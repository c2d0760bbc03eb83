#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include <holdfast/collectives/buffer.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

#include "checks.hpp"
#include "rules/arguments.hpp"
#include "rules/bucketing.hpp"
#include "rules/decision.hpp"
#include "rules/flag.hpp"

namespace holdfast::vectors {
namespace {

using rules::number_text;

/// How many owners share the columns. With one the same process holds everything: the direct path.
constexpr int kOwners[] = {1, 2, 3, 4, 7};

struct Expression {
  std::string text;
  bool mixture_only = false;
};

std::string call(std::string const& name, std::vector<std::string> const& arguments) {
  std::string text;
  for (auto const& argument : arguments) text += (text.empty() ? "" : ", ") + argument;
  return name + "(" + text + ")";
}

std::string absolute_geometric_median(AggregatorCase const& c) {
  return call("geometric_median", {"start=zero", "absolute_smoothing=" + number_text(c.number("nu")),
                                   "iterations=" + std::to_string(c.integer("T"))});
}

std::string clipping(AggregatorCase const& c, std::string const& iterations) {
  std::vector<std::string> arguments{"iterations=" + std::to_string(c.integer(iterations))};
  if (auto const word = c.words.find("tau"); word != c.words.end()) {
    arguments.push_back("threshold=" + word->second);
    arguments.push_back("factor=" + number_text(c.number("factor")));
  } else {
    arguments.push_back("threshold=" + number_text(c.number("tau")));
  }
  if (c.numbers.count("eps") != 0) {
    arguments.emplace_back("center=median");
    arguments.push_back("tolerance=" + number_text(c.number("eps")));
  }
  return call("centered_clipping", arguments);
}

std::string flag(AggregatorCase const& c, std::string const& scale, std::string const& pairs) {
  return call("flag",
              {"dimension=" + std::to_string(c.integer("m")), "iterations=" + std::to_string(c.integer("iters")),
               "lambda=" + number_text(c.number("lam")), "scale=" + scale, "pairs=" + pairs});
}

/// The rule text of each name that the schema knows.
std::map<std::string, std::function<Expression(AggregatorCase const&)>> const& expressions() {
  using Case = AggregatorCase;
  auto const plain = [](char const* text) { return [text](Case const&) { return Expression{text}; }; };
  static std::map<std::string, std::function<Expression(Case const&)>> const table{
      {"mean", plain("mean")},
      {"cw_median", plain("median")},
      {"cw_median_lower", plain("median(yes)")},
      {"cw_trimmed_mean", plain("trimmed_mean")},
      {"cw_meamed", plain("meamed")},
      {"cw_phocas", plain("phocas")},
      {"krum_paper", plain("krum")},
      {"krum_byzfl", plain("krum(neighbors=wide)")},
      {"krum_rcl", plain("krum(neighbors=wide, power=1)")},
      {"krum_epfml", plain("krum(power=4)")},
      {"multikrum_paper",
       [](Case const& c) {
         // Fewer rows than one are refused where a rule is read; like too many, they are out of bounds.
         int const m = c.integer("m") < 1 ? static_cast<int>(c.inputs.size()) + 1 : c.integer("m");
         return Expression{"multi_krum(" + std::to_string(m) + ")"};
       }},
      {"multikrum_byzfl", plain("multi_krum(neighbors=wide)")},
      {"multikrum_garfield", plain("multi_krum(m=n-f-2, neighbors=wide, power=1)")},
      {"mda", plain("mda")},
      {"mva", plain("mva")},
      {"smea", plain("smea")},
      {"cge", plain("cge")},
      {"caf_exact", plain("caf")},
      {"bulyan_paper", plain("bulyan")},
      {"geometric_median",
       [](Case const& c) {
         return Expression{call("geometric_median", {"smoothing=" + number_text(c.number("smoothing")),
                                                     "iterations=" + std::to_string(c.integer("T"))})};
       }},
      {"geometric_median_smoothed", [](Case const& c) { return Expression{absolute_geometric_median(c)}; }},
      {"rfa_epfml", [](Case const& c) { return Expression{absolute_geometric_median(c)}; }},
      {"centered_clipping", [](Case const& c) { return Expression{clipping(c, "n_iter")}; }},
      {"btard_centered_clip", [](Case const& c) { return Expression{clipping(c, "n_iters")}; }},
      {"btard_centered_clip_weighted", [](Case const& c) { return Expression{clipping(c, "n_iters")}; }},
      {"nna", [](Case const& c) { return Expression{"nna(" + std::to_string(c.integer("pivot")) + ")"}; }},
      {"nna_iterated",
       [](Case const& c) {
         return Expression{call(
             "nna", {"pivot=" + std::to_string(c.integer("pivot")), "repeat=" + std::to_string(c.integer("iters"))})};
       }},
      {"nnm",
       [](Case const&) {
         return Expression{"nnm+mean", true};
       }},
      {"arc",
       [](Case const&) {
         return Expression{"arc+mean", true};
       }},
      {"bucketing",
       // The permutation is given, and no final rule is there to bound what is left of f among the buckets.
       [](Case const&) {
         return Expression{"mean", true};
       }},
      {"static_clipping",
       [](Case const& c) {
         return Expression{"static_clipping(" + number_text(c.number("c")) + ")+mean", true};
       }},
      {"nnm+mean", plain("nnm+mean")},
      {"nnm+trmean", plain("nnm+trimmed_mean")},
      {"nnm+median", plain("nnm+median")},
      {"nnm+geomedian", [](Case const& c) { return Expression{"nnm+" + absolute_geometric_median(c)}; }},
      {"nnm+krum_byzfl", plain("nnm+krum(neighbors=wide)")},
      {"flag_code", [](Case const& c) { return Expression{flag(c, "unit", "raw")}; }},
      {"flag_median", [](Case const& c) { return Expression{flag(c, "median", "normalized")}; }},
      {"flag_paper", [](Case const& c) { return Expression{flag(c, "paper", "normalized")}; }},
  };
  return table;
}

bool is_built(std::string const& expression) {
  auto const all = Rule::all();
  auto const parts = rules::split_outside_parentheses(expression, '+');
  return std::all_of(parts.begin(), parts.end(), [&](std::string const& part) {
    auto const name = rules::parse_call(part).name;
    return std::any_of(all.begin(), all.end(), [&](auto const& description) { return description.name == name; });
  });
}

/// The columns of one owner: every row's part of them, and the part of the centre.
template <class T>
struct Shard {
  std::size_t begin = 0;
  std::size_t elements = 0;
  std::vector<std::vector<T>> rows;
  std::optional<std::vector<T>> center;

  [[nodiscard]] kernels::Rows view(std::vector<std::byte const*>& pointers, std::vector<int> const& ranks) const {
    pointers.clear();
    for (int const rank : ranks)
      pointers.push_back(reinterpret_cast<std::byte const*>(rows[static_cast<std::size_t>(rank)].data()));
    return {pointers, elements, DTypeOf<T>::value};
  }
  [[nodiscard]] std::byte const* center_bytes() const {
    return center ? reinterpret_cast<std::byte const*>(center->data()) : nullptr;
  }
};

template <class T>
std::vector<Shard<T>> cut(Table const& inputs, std::vector<double> const& center, int owners) {
  std::size_t const elements = inputs.empty() ? 0 : inputs.front().size();
  std::vector<Shard<T>> shards;
  for (int owner = 0; owner < owners; ++owner) {
    Shard<T> shard;
    auto const boundary = [&](int index) {
      return elements * static_cast<std::size_t>(index) / static_cast<std::size_t>(owners);
    };
    shard.begin = boundary(owner);
    shard.elements = boundary(owner + 1) - shard.begin;
    auto const slice = [&](std::vector<double> const& row) {
      std::vector<T> values;
      for (std::size_t i = 0; i < shard.elements; ++i) values.push_back(static_cast<T>(row[shard.begin + i]));
      return values;
    };
    for (auto const& row : inputs) shard.rows.push_back(slice(row));
    if (!center.empty()) shard.center = slice(center);
    shards.push_back(std::move(shard));
  }
  return shards;
}

struct Run {
  Table output;               ///< one row, or one per row of a mixture
  std::vector<int> selected;  ///< original rows that enter the result
};

/// What the members of a group compute together, each step as the sharded pipeline does it.
template <class T>
class Evaluation {
 public:
  Evaluation(Rule const& rule, AggregatorCase const& given, Expression const& expression)
      : rule_(rule), case_(given), mixture_only_(expression.mixture_only) {}

  Outcome<Run> run(Table const& inputs, std::vector<double> const& center, int owners) const {
    int const n = static_cast<int>(inputs.size());
    auto shards = cut<T>(inputs, center, owners);
    auto const everybody = RowMask::all(n).indices();
    std::vector<std::byte const*> pointers;

    RowMask non_finite(n);
    for (auto const& shard : shards) kernels::screen(shard.view(pointers, everybody), non_finite);

    std::vector<int> compared = everybody;
    if (rules::center_source(rule_) == rules::CenterSource::median) {
      auto const set = rules::screen_contributions(rule_, RowMask::all(n), non_finite, case_.byzantine());
      if (!set) return tl::unexpected<Failure>(set.error());
      compared = set->ranks;
      for (auto& shard : shards) {
        shard.center.emplace(shard.elements);
        kernels::coordinate(shard.view(pointers, compared), {kernels::CoordinateKernel::Kind::median_lower, 0},
                            reinterpret_cast<std::byte*>(shard.center->data()));
      }
    }

    std::optional<rules::GramMatrix> gram;
    if (rule_.needs_gram()) gram = sum_of_grams(shards, compared, n);
    auto const set =
        rules::screen_contributions(rule_, RowMask::all(n), non_finite, case_.byzantine(), gram ? &*gram : nullptr);
    if (!set) return tl::unexpected<Failure>(set.error());
    rules::DecisionInput input{*set, gram ? gram->subset(set->ranks) : rules::GramMatrix(), {}};
    if (auto const weights = case_.lists.find("weights"); weights != case_.lists.end())
      for (int const rank : set->ranks) input.weights.push_back(weights->second[static_cast<std::size_t>(rank)]);

    if (case_.tables.count("Y0") != 0) return run_flag_from_start(input, shards, inputs);
    auto const decision = decide(input);
    if (!decision) return tl::unexpected<Failure>(decision.error());
    return combine(*decision, set->ranks, inputs, shards);
  }

 private:
  rules::GramMatrix sum_of_grams(std::vector<Shard<T>> const& shards, std::vector<int> const& compared, int n) const {
    int const rows = static_cast<int>(compared.size());
    std::vector<std::byte const*> pointers;
    std::vector<double> total(kernels::packed_entries(rows), 0);
    for (auto const& shard : shards) {
      std::vector<double> partial(total.size(), 0);
      kernels::accumulate_gram(shard.view(pointers, compared), shard.center_bytes(), partial);
      for (std::size_t i = 0; i < total.size(); ++i) total[i] += partial[i];
    }
    auto const packed = rules::GramMatrix::from_packed(rows, total);
    rules::GramMatrix gram(n);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < rows; ++j)
        gram(compared[static_cast<std::size_t>(i)], compared[static_cast<std::size_t>(j)]) = packed(i, j);
    return gram;
  }

  Outcome<rules::Decision> decide(rules::DecisionInput const& input) const {
    if (!mixture_only_) return rules::decide(rule_, input);
    rules::Decision decision;
    if (case_.rule == "bucketing") {
      int const size = case_.integer("s");
      if (size < 1) throw Malformed(case_.id + ": parameter 's' must be at least 1");
      decision.outputs = rules::bucket_means(surviving_permutation(input.set.ranks), size);
      return decision;
    }
    auto mixture = rules::decide_mixture(rule_, input);
    if (!mixture) return tl::unexpected<Failure>(mixture.error());
    decision.outputs = std::move(*mixture);
    return decision;
  }

  /// A given permutation is no parameter of the public rule. It names original rows: screened ones leave it.
  std::vector<int> surviving_permutation(std::vector<int> const& ranks) const {
    auto const given = case_.lists.find("permutation");
    if (given == case_.lists.end()) throw Malformed(case_.id + ": parameter 'permutation' is missing");
    std::vector<int> permutation;
    for (double const row : given->second) {
      auto const found = std::find(ranks.begin(), ranks.end(), static_cast<int>(row));
      if (found != ranks.end()) permutation.push_back(static_cast<int>(found - ranks.begin()));
    }
    auto sorted = permutation;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < ranks.size(); ++i)
      if (sorted.size() != ranks.size() || sorted[i] != static_cast<int>(i))
        throw Malformed(case_.id + ": parameter 'permutation' is not a permutation of the rows");
    return permutation;
  }

  /// An explicit start is no parameter of the public rule: it enters as the products of its columns with the rows.
  Outcome<Run> run_flag_from_start(rules::DecisionInput const& input, std::vector<Shard<T>> const& shards,
                                   Table const& inputs) const {
    auto const& start = case_.tables.at("Y0");
    rules::FlagParameters parameters;
    parameters.dimension = case_.integer("m");
    parameters.iterations = case_.integer("iters");
    parameters.lambda = case_.number("lam");
    parameters.raw_pairs = true;
    auto const& ranks = input.set.ranks;
    rules::Matrix products(start.front().size(), std::vector<double>(ranks.size(), 0));
    for (auto const& shard : shards)
      for (std::size_t column = 0; column < products.size(); ++column)
        for (std::size_t row = 0; row < ranks.size(); ++row)
          for (std::size_t i = 0; i < shard.elements; ++i)
            products[column][row] +=
                start[shard.begin + i][column] * shard.rows[static_cast<std::size_t>(ranks[row])][i];
    for (auto& product : products)
      for (std::size_t row = 0; row < product.size(); ++row) {
        double const norm = std::sqrt(input.gram(static_cast<int>(row), static_cast<int>(row)));
        product[row] = norm > 0 ? product[row] / norm : 0;
      }
    auto const flag = rules::flag_aggregate(input.gram, parameters, products);
    if (!flag.keeps_start) {
      rules::Decision decision;
      decision.outputs = {kernels::Combination{flag.coefficients, false, 0}};
      return combine(decision, ranks, inputs, shards);
    }
    Run run;
    run.output.assign(1, std::vector<double>(inputs.front().size(), 0));
    for (std::size_t column = 0; column < products.size(); ++column) {
      double sum = 0;
      for (double const product : products[column]) sum += product;
      for (std::size_t i = 0; i < start.size(); ++i) run.output[0][i] += sum * start[i][column] / parameters.dimension;
    }
    return run;
  }

  Run combine(rules::Decision const& decision, std::vector<int> const& ranks, Table const& inputs,
              std::vector<Shard<T>> const& shards) const {
    Run run;
    std::size_t const outputs = std::max<std::size_t>(decision.outputs.size(), 1);
    run.output.assign(outputs, std::vector<double>(inputs.front().size(), 0));
    std::vector<std::byte const*> pointers;
    for (std::size_t output = 0; output < outputs; ++output) {
      for (auto const& shard : shards) {
        std::vector<T> result(shard.elements);
        rules::apply(decision, shard.view(pointers, ranks), shard.center_bytes(), static_cast<int>(output),
                     reinterpret_cast<std::byte*>(result.data()));
        for (std::size_t i = 0; i < shard.elements; ++i) run.output[output][shard.begin + i] = result[i];
      }
    }
    auto const& chosen = decision.outputs.empty() ? decision.mixture : decision.outputs;
    for (std::size_t row = 0; row < ranks.size(); ++row)
      if (std::any_of(chosen.begin(), chosen.end(), [&](auto const& c) { return c.coefficients[row] != 0; }))
        run.selected.push_back(ranks[row]);
    return run;
  }

  Rule const& rule_;
  AggregatorCase const& case_;
  bool mixture_only_;
};

struct Failed {
  std::string why;
};

/// @return the largest error
template <class T>
double evaluate(Rule const& rule, AggregatorCase const& given, Expression const& expression, double tolerance) {
  Evaluation<T> const evaluation(rule, given, expression);
  auto const v0 = given.lists.find("v0");
  std::vector<double> const center = v0 == given.lists.end() ? std::vector<double>{} : v0->second;
  double worst = 0;
  std::optional<Run> direct;
  for (int const owners : kOwners) {
    auto const where = std::string(name(DTypeOf<T>::value)) + " over " + std::to_string(owners) + " owners: ";
    auto const compare = [&](Table const& output, Table const& expected) {
      if (output.size() != expected.size()) throw Failed{where + "wrong number of rows"};
      double const error = relative_error(output, expected);
      if (!(error <= tolerance))
        throw Failed{where + "error " + number_text(error) + " above " + number_text(tolerance)};
      worst = std::max(worst, error);
    };
    auto const run = evaluation.run(given.inputs, center, owners);
    if (!given.expected) {
      if (run) throw Failed{where + "gave a result where " + given.error + " was expected"};
      if (name(run.error().code) != given.error)
        throw Failed{where + "gave " + name(run.error().code) + ", expected " + given.error};
      continue;
    }
    if (!run) throw Failed{where + name(run.error().code) + ": " + run.error().detail};
    compare(run->output, *given.expected);
    if (!given.selected.empty() && run->selected != given.selected) throw Failed{where + "other rows were selected"};
    if (!direct) direct = *run;
    if (rule.kind() == RuleKind::coordinate && run->output != direct->output)
      throw Failed{where + "the bits of a coordinate rule depend on the sharding"};
    if (given.second_inputs) {
      auto const second = evaluation.run(*given.second_inputs, run->output.front(), owners);
      if (!second) throw Failed{where + "second call: " + second.error().detail};
      compare(second->output, {given.second_expected});
    }
  }
  return worst;
}

void check_flag_values(AggregatorCase const& given) {
  if ((given.values.empty() && given.objective_trace.empty()) || given.tables.count("Y0") != 0) return;
  Table rows;
  for (auto const& row : given.inputs)
    if (std::all_of(row.begin(), row.end(), [](double value) { return std::isfinite(value); })) rows.push_back(row);
  int const n = static_cast<int>(rows.size());
  rules::GramMatrix gram(n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      for (std::size_t k = 0; k < rows.front().size(); ++k)
        gram(i, j) += rows[static_cast<std::size_t>(i)][k] * rows[static_cast<std::size_t>(j)][k];
  rules::FlagParameters parameters;
  parameters.dimension = given.integer("m");
  parameters.iterations = given.integer("iters");
  parameters.lambda = given.number("lam");
  parameters.raw_pairs = given.rule == "flag_code";
  auto const flag = rules::flag_aggregate(gram, parameters);
  if (!given.values.empty() && (flag.values.size() != given.values.size() ||
                                !(relative_error({flag.values}, {given.values}) <= std::max(1e-9, given.tolerance))))
    throw Failed{"the values v_i differ"};
  // Once all rows lie in the subspace the data term is the square root of rounding noise, and so is what follows.
  constexpr double kTraceTolerance = 1e-6;
  for (std::size_t i = 0; i < std::min(flag.trace.size(), given.objective_trace.size()); ++i)
    if (!(std::abs(flag.trace[i] - given.objective_trace[i]) <= kTraceTolerance * n))
      throw Failed{"the objective differs after iteration " + std::to_string(i)};
}

}  // namespace

double relative_error(Table const& output, Table const& expected) {
  double largest = 1;
  for (auto const& row : expected)
    for (double const value : row) largest = std::max(largest, std::abs(value));
  double error = 0;
  for (std::size_t r = 0; r < expected.size(); ++r)
    for (std::size_t i = 0; i < expected[r].size(); ++i) {
      double const off = std::abs(output[r][i] - expected[r][i]) / largest;
      if (std::isnan(off)) return off;
      error = std::max(error, off);
    }
  return error;
}

Result check_aggregator(AggregatorCase const& given) {
  constexpr double kFloat32Tolerance = 1e-6;
  Result result;
  auto const found = expressions().find(given.rule);
  if (found == expressions().end()) {
    result.verdict = Verdict::failed;
    result.explanation = "unknown rule '" + given.rule + "'";
    return result;
  }
  try {
    auto const expression = found->second(given);
    if (!is_built(expression.text)) {
      result.verdict = Verdict::skipped;
      result.explanation = "this build has no " + given.rule;
      return result;
    }
    auto const rule = Rule::parse(expression.text);
    result.error64 = evaluate<double>(rule, given, expression, given.tolerance);
    if (given.is_float32)
      result.error32 = evaluate<float>(rule, given, expression, std::max(kFloat32Tolerance, given.tolerance));
    check_flag_values(given);
  } catch (Failed const& failed) {
    result.verdict = Verdict::failed;
    result.explanation = failed.why;
  } catch (std::exception const& error) {  // a parameter that no rule takes, or that is missing
    result.verdict = Verdict::failed;
    result.explanation = error.what();
  }
  return result;
}

}  // namespace holdfast::vectors
