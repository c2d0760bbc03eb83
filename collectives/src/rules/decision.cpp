#include "rules/decision.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "rules/rule_impl.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

std::string rank_list(RowMask const& mask) {
  std::string text;
  for (int const rank : mask.indices()) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return text;
}

/// Weights are claims by members: with faults to tolerate none counts for more than twice the median.
std::vector<double> usable_weights(DecisionInput const& input) {
  auto const n = static_cast<std::size_t>(input.set.contributions());
  if (input.weights.empty()) return std::vector<double>(n, 1);
  std::vector<double> weights;
  for (double const weight : input.weights) weights.push_back(weight > 0 && std::isfinite(weight) ? weight : 0);
  if (input.set.byzantine > 0) {
    double const most = 2 * median(weights);
    for (auto& weight : weights) weight = std::min(weight, most);
  }
  return weights;
}

/// M times the rows that `inner` describes: combinations of combinations.
Combination compose(Combination const& outer, std::vector<Combination> const& inner) {
  std::vector<double> coefficients(inner.front().coefficients.size(), 0);
  for (std::size_t row = 0; row < inner.size(); ++row) {
    double const by = outer.coefficients[row];
    if (by == 0) continue;
    for (std::size_t i = 0; i < coefficients.size(); ++i) coefficients[i] += by * inner[row].coefficients[i];
  }
  return Combination::of(std::move(coefficients), outer.center_coefficient);
}

/// The Gram of the mixed rows: M G M^T. Rows with the same mixture are the same row and have the same bits here:
/// whoever compares them must see a tie, not the order in which products were added.
GramMatrix mix_gram(GramMatrix const& gram, std::vector<Combination> const& mixture) {
  int const rows = static_cast<int>(mixture.size());
  int const n = gram.rows();
  std::vector<int> first_like(mixture.size());
  std::vector<std::vector<double>> half(mixture.size());
  for (std::size_t i = 0; i < mixture.size(); ++i) {
    auto const equal = std::find_if(mixture.begin(), mixture.end(), [&](Combination const& other) {
      return other.coefficients == mixture[i].coefficients;
    });
    first_like[i] = static_cast<int>(equal - mixture.begin());
    if (first_like[i] != static_cast<int>(i)) continue;
    half[i].assign(static_cast<std::size_t>(n), 0);
    for (int k = 0; k < n; ++k) {
      double const by = mixture[i].coefficients[static_cast<std::size_t>(k)];
      if (by == 0) continue;
      for (int j = 0; j < n; ++j) half[i][static_cast<std::size_t>(j)] += by * gram(k, j);
    }
  }
  GramMatrix mixed(rows);
  for (int i = 0; i < rows; ++i)
    for (int j = i; j < rows; ++j) {
      int const a = std::min(first_like[static_cast<std::size_t>(i)], first_like[static_cast<std::size_t>(j)]);
      int const b = std::max(first_like[static_cast<std::size_t>(i)], first_like[static_cast<std::size_t>(j)]);
      double sum = 0;
      if (a != i || b != j) {
        sum = mixed(a, b);
      } else {
        for (int k = 0; k < n; ++k) {
          double const by = mixture[static_cast<std::size_t>(j)].coefficients[static_cast<std::size_t>(k)];
          if (by != 0) sum += half[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)] * by;
        }
      }
      mixed(i, j) = mixed(j, i) = sum;
    }
  return mixed;
}

/// Runs the mixers; `statistics` becomes that of the mixed rows, `weights` what its weights are kept in.
std::vector<Combination> run_mixers(Rule::Impl const& rule, Statistics& statistics, std::vector<double>& weights) {
  std::vector<Combination> mixture;
  for (auto const& step : rule.mixers) {
    auto const next = step.mixer->mix(statistics);
    if (statistics.gram.rows() > 0) statistics.gram = mix_gram(statistics.gram, next);
    if (static_cast<int>(next.size()) != statistics.contributions) {
      std::vector<double> of_mixed;
      for (auto const& row : next) {
        double weight = 0;
        for (std::size_t i = 0; i < weights.size(); ++i) weight += row.coefficients[i] * weights[i];
        of_mixed.push_back(weight);
      }
      weights = std::move(of_mixed);
      statistics.weights = weights;
      statistics.contributions = static_cast<int>(next.size());
      statistics.ranks = {};
    }
    if (mixture.empty()) {
      mixture = next;
    } else {
      std::vector<Combination> composed;
      for (auto const& row : next) composed.push_back(compose(row, mixture));
      mixture = std::move(composed);
    }
  }
  return mixture;
}

/// The rows themselves, where each mixed row is one of them.
std::optional<std::vector<std::byte const*>> selected_rows(std::vector<Combination> const& mixture,
                                                           Rows const& surviving) {
  std::vector<std::byte const*> selected;
  for (auto const& row : mixture) {
    auto const& c = row.coefficients;
    auto const one = std::find(c.begin(), c.end(), 1.0);
    if (one == c.end() || std::count(c.begin(), c.end(), 0.0) + 1 != static_cast<std::ptrdiff_t>(c.size()))
      return std::nullopt;
    selected.push_back(surviving.data[static_cast<std::size_t>(one - c.begin())]);
  }
  return selected;
}

Outcome<std::vector<double>> checked_weights(DecisionInput const& input) {
  auto weights = usable_weights(input);
  if (std::all_of(weights.begin(), weights.end(), [](double weight) { return weight == 0; }))
    return fail(Errc::too_many_faulty_rows, "the weights of all contributions are zero");
  return weights;
}

}  // namespace

Outcome<ContributionSet> screen_contributions(Rule const& rule, RowMask const& arrived, RowMask const& non_finite,
                                              int byzantine, GramMatrix const* gram) {
  ContributionSet set;
  set.missing = RowMask::all(arrived.rows());
  set.missing.subtract(arrived);
  set.non_finite = arrived & non_finite;
  if (gram != nullptr)
    for (int row = 0; row < arrived.rows(); ++row)
      if (arrived.test(row) && !std::isfinite((*gram)(row, row))) set.non_finite.set(row);
  if (auto checked = rule.check_bounds(arrived.count(), byzantine); !checked)
    return tl::unexpected<Failure>(std::move(checked.error()));
  int const faulty = set.non_finite.count();
  if (faulty > byzantine)
    return fail(Errc::too_many_faulty_rows, std::to_string(faulty) + " contributions hold NaN or infinity (rank " +
                                                rank_list(set.non_finite) + "), but f = " + std::to_string(byzantine) +
                                                "; raise f, or look for the cause at those ranks");
  set.rows = arrived;
  set.rows.subtract(set.non_finite);
  set.ranks = set.rows.indices();
  set.byzantine = byzantine - faulty;
  return set;
}

std::optional<int> Decision::output_of(int rank) const {
  if (output_ranks.empty()) return 0;
  auto const found = std::find(output_ranks.begin(), output_ranks.end(), rank);
  if (found == output_ranks.end()) return std::nullopt;
  return static_cast<int>(found - output_ranks.begin());
}

std::vector<int> Decision::unused_rows() const {
  auto const& rows = coordinate ? mixture : outputs;
  if (rows.empty()) return {};
  std::size_t const n = rows.front().coefficients.size();
  // Row i of a square mixture belongs to the member of row i, as the outputs of a per-member rule do.
  bool const is_per_row = rows.size() == n && (coordinate || !output_ranks.empty());
  std::vector<int> unused;
  for (std::size_t i = 0; i < n; ++i) {
    // Its own mixture does not count if there it stands among others that would not have it in theirs.
    auto const has_company = [&] {
      auto const& own = rows[i].coefficients;
      return own.size() - static_cast<std::size_t>(std::count(own.begin(), own.end(), 0.0)) > 1;
    };
    std::size_t const own = is_per_row && has_company() ? i : rows.size();
    bool is_used = false;
    for (std::size_t row = 0; row < rows.size(); ++row)
      is_used = is_used || (row != own && rows[row].coefficients[i] != 0);
    if (!is_used) unused.push_back(static_cast<int>(i));
  }
  return unused;
}

Outcome<Decision> decide(Rule const& rule, DecisionInput const& input) {
  auto const& impl = rule.impl();
  auto weights = checked_weights(input);
  if (!weights) return tl::unexpected<Failure>(weights.error());
  Statistics statistics{input.gram, input.set.contributions(), input.set.byzantine,
                        *weights,   input.set.ranks,           input.random_key};
  Decision decision;
  decision.mixture = run_mixers(impl, statistics, *weights);
  if (impl.coordinate) {
    decision.coordinate = impl.coordinate->kernel(statistics.contributions, statistics.byzantine);
    return decision;
  }
  if (impl.selecting) {
    decision.coordinate = impl.selecting->kernel(statistics.contributions, statistics.byzantine);
    std::vector<Combination> selected;
    for (int const row : impl.selecting->select(statistics)) {
      auto const unit = Combination::mean_of(statistics.contributions, std::vector{row});
      selected.push_back(decision.mixture.empty() ? unit : compose(unit, decision.mixture));
    }
    decision.mixture = std::move(selected);
    return decision;
  }

  if (statistics.contributions == 1 && impl.linear->keeps_single_row()) {
    decision.outputs = {Combination::mean_of(1, std::vector{0})};
  } else {
    auto outputs = impl.linear->coefficients(statistics);
    if (!outputs) return tl::unexpected<Failure>(std::move(outputs.error()));
    decision.outputs = std::move(*outputs);
  }
  if (impl.linear->is_per_member()) decision.output_ranks = input.set.ranks;
  if (!decision.mixture.empty()) {
    for (auto& output : decision.outputs) output = compose(output, decision.mixture);
    decision.mixture.clear();
  }
  return decision;
}

Outcome<std::vector<Combination>> decide_mixture(Rule const& rule, DecisionInput const& input) {
  auto weights = checked_weights(input);
  if (!weights) return tl::unexpected<Failure>(weights.error());
  Statistics statistics{input.gram, input.set.contributions(), input.set.byzantine,
                        *weights,   input.set.ranks,           input.random_key};
  return run_mixers(rule.impl(), statistics, *weights);
}

void apply(Decision const& decision, Rows const& surviving, std::byte const* center, int output, std::byte* out) {
  if (!decision.coordinate)
    return kernels::combine(surviving, decision.outputs[static_cast<std::size_t>(output)], center, out);
  if (decision.mixture.empty()) return kernels::coordinate(surviving, *decision.coordinate, out);
  if (auto const selected = selected_rows(decision.mixture, surviving))
    return kernels::coordinate({*selected, surviving.elements, surviving.dtype}, *decision.coordinate, out);

  // The mixed rows are formed a block at a time and never leave the cache. Rows of 16 bits are mixed as float32: their
  // result is rounded once.
  constexpr std::size_t kBlock = 2048;
  std::size_t const width = element_bytes(surviving.dtype);
  bool const widened = width == 2;
  DType const dtype = widened ? DType::float32 : surviving.dtype;
  std::size_t const row_bytes = kBlock * element_bytes(dtype);
  std::vector<std::byte> mixed(decision.mixture.size() * row_bytes);
  std::vector<float> wide(widened ? (surviving.data.size() + 1) * kBlock : 0);
  float* const wide_result = wide.data() + surviving.data.size() * kBlock * (widened ? 1 : 0);
  std::vector<std::byte const*> from(surviving.data.size());
  std::vector<std::byte*> mixed_rows(decision.mixture.size());
  for (std::size_t row = 0; row < mixed_rows.size(); ++row) mixed_rows[row] = mixed.data() + row * row_bytes;
  std::vector<std::byte const*> const mixed_view(mixed_rows.begin(), mixed_rows.end());
  for (std::size_t begin = 0; begin < surviving.elements; begin += kBlock) {
    std::size_t const elements = std::min(kBlock, surviving.elements - begin);
    for (std::size_t row = 0; row < from.size(); ++row) {
      from[row] = surviving.data[row] + begin * width;
      if (!widened) continue;
      float* const to = wide.data() + row * kBlock;
      kernels::widen(from[row], elements, surviving.dtype, to);
      from[row] = reinterpret_cast<std::byte const*>(to);
    }
    kernels::mix({from, elements, dtype}, decision.mixture, mixed_rows);
    if (widened) {
      kernels::coordinate({mixed_view, elements, dtype}, *decision.coordinate,
                          reinterpret_cast<std::byte*>(wide_result));
      kernels::narrow(wide_result, elements, surviving.dtype, out + begin * width);
    } else {
      kernels::coordinate({mixed_view, elements, dtype}, *decision.coordinate, out + begin * width);
    }
  }
}

}  // namespace holdfast::rules
