#include <algorithm>
#include <cmath>
#include <limits>

#include <holdfast/collectives/counter_random.hpp>
#include <holdfast/collectives/local_aggregation.hpp>
#include <holdfast/runtime/error.hpp>

#include "rules/arguments.hpp"
#include "rules/attack_impl.hpp"
#include "rules/line_search.hpp"

namespace holdfast {
namespace {

using rules::Arguments;
using Row = std::vector<double>;
using MakeRow = std::function<Row(AttackContext const&)>;

enum Purpose : std::uint64_t { kGaussian = 1, kUniform = 2, kDirection = 3, kDrift = 4, kMimic = 5, kVote = 6 };

Row mean(std::vector<Row> const& rows) {
  Row mu(rows.front().size(), 0);
  for (auto const& row : rows)
    for (std::size_t i = 0; i < mu.size(); ++i) mu[i] += row[i];
  for (auto& value : mu) value /= static_cast<double>(rows.size());
  return mu;
}
Row mean(AttackContext const& context) {
  return mean(context.honest);
}

/// Per coordinate, divisor (number of rows - 1); zeros for a single row.
Row deviation(std::vector<Row> const& rows, Row const& mu) {
  Row sd(mu.size(), 0);
  if (rows.size() < 2) return sd;
  for (auto const& row : rows)
    for (std::size_t i = 0; i < mu.size(); ++i) sd[i] += (row[i] - mu[i]) * (row[i] - mu[i]);
  for (auto& value : sd) value = std::sqrt(value / static_cast<double>(rows.size() - 1));
  return sd;
}
Row deviation(AttackContext const& context, Row const& mu) {
  return deviation(context.honest, mu);
}

Row combine(double a, Row const& x, double b, Row const& y) {
  Row result(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) result[i] = a * x[i] + b * y[i];
  return result;
}

Row scaled(double a, Row row) {
  for (auto& value : row) value *= a;
  return row;
}

double dot(Row const& a, Row const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Inverse of the standard normal distribution by bisection: only used once a step, needs no table of coefficients.
double normal_quantile(double probability) {
  double low = -40;
  double high = 40;
  for (int step = 0; step < 200; ++step) {
    double const middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < probability ? low : high) = middle;
  }
  return (low + high) / 2;
}

/// The largest deviation that still lets the attackers hide in a majority (Baruch, Baruch, Goldberg, NeurIPS 2019).
double alie_max_deviation(int n, int f) {
  int const supporters = n / 2 + 1 - f;
  double const probability = static_cast<double>(n - f - supporters) / static_cast<double>(n - f);
  return probability <= 0 || probability >= 1 ? 0 : normal_quantile(probability);
}

Row unit_direction(CounterRandom const& random, std::size_t elements) {
  Row direction(elements);
  for (std::size_t i = 0; i < elements; ++i) direction[i] = random.normal(i);
  double const norm = std::sqrt(dot(direction, direction));
  return norm > 0 ? scaled(1 / norm, std::move(direction)) : direction;
}

/// mu + g p with the largest g that keeps the row as close to the honest rows as they are to each other (Shejwalkar,
/// Houmansadr, NDSS 2021): the largest distance, or the largest sum of squared distances.
Row hidden_row(AttackContext const& context, std::string const& direction, bool sums) {
  auto const mu = mean(context);
  Row p = scaled(-1, direction == "sd" ? deviation(context, mu) : mu);
  if (direction == "mean") {
    double const norm = std::sqrt(dot(p, p));
    p = scaled(norm > 0 ? 1 / norm : 0, std::move(p));
  } else if (direction == "sign") {
    for (auto& value : p) value = value > 0 ? 1 : value < 0 ? -1 : 0;
  }
  auto const n = context.honest.size();
  double allowed = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double total = 0;
    for (std::size_t j = 0; j < n; ++j) {
      auto const difference = combine(1, context.honest[i], -1, context.honest[j]);
      double const squared = dot(difference, difference);
      total = sums ? total + squared : std::max(total, squared);
    }
    allowed = std::max(allowed, total);
  }
  // ||mu + g p - x_i||^2 = constant_i + 2 g linear_i + g^2 ||p||^2
  Row constant;
  Row linear;
  for (auto const& row : context.honest) {
    auto const difference = combine(1, mu, -1, row);
    constant.push_back(dot(difference, difference));
    linear.push_back(dot(p, difference));
  }
  double const quadratic = dot(p, p);
  auto const hides = [&](double g) {
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) {
      double const squared = constant[i] + 2 * g * linear[i] + g * g * quadratic;
      total = sums ? total + squared : std::max(total, squared);
    }
    return total <= allowed;
  };
  constexpr int kSteps = 60;
  double g = 10;
  double best = 0;
  double step = 10;
  for (int k = 0; k < kSteps; ++k, step /= 2) {
    bool const fits = hides(g);
    if (fits) best = g;
    g += fits ? step : -step;
  }
  return combine(1, mu, best, p);
}

/// A row with a value everywhere or, in the middle, once.
MakeRow damaged(Arguments& arguments, double value) {
  bool const whole = arguments.choice("where", "row", {"row", "entry"}) == "row";
  return [=](AttackContext const& c) {
    Row row = c.own;
    if (whole) {
      std::fill(row.begin(), row.end(), value);
    } else if (!row.empty()) {
      row[row.size() / 2] = value;
    }
    return row;
  };
}

/// What the rule makes of the honest rows and f copies of a Byzantine one: how far from the honest mean it comes. With
/// an output per member it is the mean of those of the honest members.
double damage(AttackContext const& context, Row const& mu, Row const& byzantine) {
  std::vector<ConstBuffer> rows;
  for (auto const& row : context.honest) rows.emplace_back(std::span<double const>(row));
  for (int copy = 0; copy < context.byzantine; ++copy) rows.emplace_back(std::span<double const>(byzantine));
  Row total(mu.size(), 0);
  int const outputs = context.rule->is_per_member() ? static_cast<int>(context.honest.size()) : 1;
  for (int member = 0; member < outputs; ++member) {
    Row result(mu.size());
    LocalAggregationOptions options;
    options.byzantine = context.byzantine;
    options.center = std::span<double const>(context.center);
    options.member = member;
    options.random_key = context.step;
    auto const done = aggregate_rows(*context.rule, rows, std::span<double>(result), options);
    // A row that makes the rule fail is noticed: no gain.
    if (!done) return 0;
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += result[i] / outputs;
  }
  auto const off = combine(1, total, -1, mu);
  return dot(off, off);
}

/// The row base + x step with the x >= 0 that deceives the rule most, found by a line search.
Row most_harmful(AttackContext const& context, rules::LineSearch const& search, Row const& mu, Row const& base,
                 Row const& step) {
  double const x = search.maximum([&](double at) { return damage(context, mu, combine(1, base, at, step)); });
  return combine(1, base, x, step);
}

rules::LineSearch line_search(Arguments& arguments) {
  rules::LineSearch search;
  search.evaluations = arguments.integer("evals", 16, 1, 100'000);
  search.start = arguments.number("start", 0, {0, 1e300, false});
  search.delta = arguments.number("delta", 1, {0, 1e300, true});
  search.ratio = arguments.number("ratio", 0.8, {0, 1e6, true});
  search.returns = arguments.choice("contraction", "both", {"both", "right"}) == "both";
  return search;
}

/// A copy of the honest row that lies farthest along the direction in which the honest rows differ most (after
/// Karimireddy, He, Jaggi, ICLR 2022). The direction is learnt step by step, by one turn of the power method each.
Row mimic_row(AttackContext const& context, bool this_step_only, std::uint64_t warm_up) {
  auto& memory = *context.memory;
  auto const& honest = context.honest;
  if (memory.copied) return honest[*memory.copied % honest.size()];
  auto const mu = mean(context);
  auto const t = static_cast<double>(memory.steps);
  if (memory.direction.size() != mu.size())
    memory.direction = unit_direction(CounterRandom(context.seed, kMimic, 0), mu.size());
  if (memory.mean.size() != mu.size()) memory.mean.assign(mu.size(), 0);
  memory.mean = combine(t / (1 + t), memory.mean, 1 / (1 + t), mu);
  auto const& center = this_step_only ? mu : memory.mean;
  Row turned(mu.size(), 0);
  for (auto const& row : honest) {
    auto const difference = combine(1, row, -1, center);
    turned = combine(1, turned, dot(difference, memory.direction), difference);
  }
  auto const unit = [](Row row) {
    double const norm = std::sqrt(dot(row, row));
    return norm > 0 ? scaled(1 / norm, std::move(row)) : row;
  };
  memory.direction = unit(combine(t / (1 + t), memory.direction, 1 / (1 + t), unit(std::move(turned))));
  std::size_t farthest = 0;
  for (std::size_t i = 1; i < honest.size(); ++i)
    if (dot(honest[i], memory.direction) > dot(honest[farthest], memory.direction)) farthest = i;
  if (warm_up > 0 && memory.steps + 1 >= warm_up) memory.copied = farthest;
  return honest[farthest];
}

struct Entry {
  std::string name;
  std::string row;
  AttackKnowledge knowledge;
  std::vector<std::string> positional;
  MakeRow (*make)(Arguments&);
};

constexpr Arguments::Range kAny{};

std::vector<Entry> const& entries() {
  constexpr auto kLocal = AttackKnowledge::local;
  constexpr auto kOmniscient = AttackKnowledge::omniscient;
  static std::vector<Entry> const table{
      {"sign_flip",
       "-mean",
       kOmniscient,
       {},
       [](Arguments&) -> MakeRow { return [](AttackContext const& c) { return scaled(-1, mean(c)); }; }},
      {"sign_flip_own",
       "-own row",
       kLocal,
       {},
       [](Arguments&) -> MakeRow { return [](AttackContext const& c) { return scaled(-1, c.own); }; }},
      {"sign_flip_scaled",
       "-s mean",
       kOmniscient,
       {"s"},
       [](Arguments& a) -> MakeRow {
         double const s = a.number("s", 1000, kAny);
         return [=](AttackContext const& c) { return scaled(-s, mean(c)); };
       }},
      {"label_flip",
       "own row, trained on labels y -> classes - 1 - y",
       kLocal,
       {},
       [](Arguments&) -> MakeRow { return [](AttackContext const& c) { return c.own; }; }},
      {"alie",
       "mean + z deviation",
       kOmniscient,
       {"z"},
       [](Arguments& a) -> MakeRow {
         double const z = a.number("z", -1.5, kAny);
         return [=](AttackContext const& c) {
           auto const mu = mean(c);
           return combine(1, mu, z, deviation(c, mu));
         };
       }},
      {"alie_colluding",
       "mean + z deviation, of the attackers' own rows",
       AttackKnowledge::colluding,
       {"z"},
       [](Arguments& a) -> MakeRow {
         double const z = a.number("z", 0.21, kAny);
         return [=](AttackContext const& c) {
           auto const mu = mean(c.colluding);
           return combine(1, mu, z, deviation(c.colluding, mu));
         };
       }},
      {"alie_max",
       "mean - z deviation, z from n and f",
       kOmniscient,
       {},
       [](Arguments&) -> MakeRow {
         return [](AttackContext const& c) {
           auto const mu = mean(c);
           return combine(1, mu, -alie_max_deviation(c.contributions, c.byzantine), deviation(c, mu));
         };
       }},
      {"inner_product",
       "-e mean",
       kOmniscient,
       {"e"},
       [](Arguments& a) -> MakeRow {
         double const e = a.number("e", 0.1, kAny);
         return [=](AttackContext const& c) { return scaled(-e, mean(c)); };
       }},
      {"optimal_alie",
       "mean - x deviation, x the most harmful against the rule",
       kOmniscient,
       {},
       [](Arguments& a) -> MakeRow {
         double const sign = a.choice("sign", "minus", {"minus", "plus"}) == "minus" ? -1 : 1;
         auto const search = line_search(a);
         return [=](AttackContext const& c) {
           auto const mu = mean(c);
           return most_harmful(c, search, mu, mu, scaled(sign, deviation(c, mu)));
         };
       }},
      {"optimal_inner_product",
       "mean - x mean, or -x mean from the origin, x the most harmful against the rule",
       kOmniscient,
       {},
       [](Arguments& a) -> MakeRow {
         bool const from_mean = a.choice("from", "mean", {"mean", "origin"}) == "mean";
         auto const search = line_search(a);
         return [=](AttackContext const& c) {
           auto const mu = mean(c);
           return most_harmful(c, search, mu, from_mean ? mu : Row(mu.size(), 0), scaled(-1, mu));
         };
       }},
      {"gaussian",
       "N(m, s^2) in each element, attackers independent",
       kLocal,
       {"m", "s"},
       [](Arguments& a) -> MakeRow {
         double const m = a.number("m", 0, kAny);
         double const s = a.number("s", 1, {0, 1e300, false});
         return [=](AttackContext const& c) {
           CounterRandom const random(c.seed, kGaussian + (c.member << 8U), c.step);
           Row row(c.own.size());
           for (std::size_t i = 0; i < row.size(); ++i) row[i] = m + s * random.normal(i);
           return row;
         };
       }},
      {"uniform",
       "uniform in [0, 1) in each element, attackers independent",
       kLocal,
       {},
       [](Arguments&) -> MakeRow {
         return [](AttackContext const& c) {
           CounterRandom const random(c.seed, kUniform + (c.member << 8U), c.step);
           Row row(c.own.size());
           for (std::size_t i = 0; i < row.size(); ++i) row[i] = random.uniform(i);
           return row;
         };
       }},
      {"constant_direction",
       "a fixed random direction, factor times as long as the own row",
       kLocal,
       {"factor"},
       [](Arguments& a) -> MakeRow {
         double const factor = a.number("factor", 1000, kAny);
         return [=](AttackContext const& c) {
           return scaled(factor * std::sqrt(dot(c.own, c.own)),
                         unit_direction(CounterRandom(c.seed, kDirection, 0), c.own.size()));
         };
       }},
      {"delayed",
       "the own row of `lag` steps ago, until then the first",
       kLocal,
       {"lag"},
       [](Arguments& a) -> MakeRow {
         auto const lag = static_cast<std::size_t>(a.integer("lag", 1000, 1, 1'000'000));
         return [=](AttackContext const& c) {
           c.memory->past.push_back(c.own);
           if (c.memory->past.size() > lag + 1) c.memory->past.pop_front();
           return c.memory->past.front();
         };
       }},
      {"mimic",
       "a copy of honest row k, or of the one farthest along the direction in which they differ most",
       kOmniscient,
       {"k"},
       [](Arguments& a) -> MakeRow {
         auto const k = a.integer_or_word("k", "heuristic", 0, 65'535, {"heuristic"});
         auto const warm_up = static_cast<std::uint64_t>(a.integer("warm_up", 0, 0, 1'000'000'000));
         bool const this_step_only = a.choice("center", "running", {"running", "step"}) == "step";
         return [=](AttackContext const& c) {
           return k.integer ? c.honest[static_cast<std::size_t>(*k.integer) % c.honest.size()]
                            : mimic_row(c, this_step_only, warm_up);
         };
       }},
      {"min_max",
       "mean + g p, as far as two honest rows are apart",
       kOmniscient,
       {"direction"},
       [](Arguments& a) -> MakeRow {
         auto const direction = a.choice("direction", "sd", {"sd", "mean", "sign"});
         return [=](AttackContext const& c) { return hidden_row(c, direction, false); };
       }},
      {"min_sum",
       "mean + g p, as far in sum as an honest row is from the others",
       kOmniscient,
       {"direction"},
       [](Arguments& a) -> MakeRow {
         auto const direction = a.choice("direction", "sd", {"sd", "mean", "sign"});
         return [=](AttackContext const& c) { return hidden_row(c, direction, true); };
       }},
      {"drift",
       "mean + a s u, u a fixed random direction, s the rms distance of the honest rows",
       kOmniscient,
       {"a"},
       [](Arguments& a) -> MakeRow {
         double const by = a.number("a", 0.9, kAny);
         return [=](AttackContext const& c) {
           auto const mu = mean(c);
           double spread = 0;
           for (auto const& row : c.honest) {
             auto const difference = combine(1, row, -1, mu);
             spread += dot(difference, difference);
           }
           spread = std::sqrt(spread / static_cast<double>(c.honest.size()));
           return combine(1, mu, by * spread, unit_direction(CounterRandom(c.seed, kDrift, 0), mu.size()));
         };
       }},
      {"nan",
       "NaN",
       kLocal,
       {"where"},
       [](Arguments& a) -> MakeRow { return damaged(a, std::numeric_limits<double>::quiet_NaN()); }},
      {"inf",
       "infinity",
       kLocal,
       {"where"},
       [](Arguments& a) -> MakeRow { return damaged(a, std::numeric_limits<double>::infinity()); }},
      {"random_vote",
       "+1 or -1 in each element, attackers independent",
       kLocal,
       {},
       [](Arguments&) -> MakeRow {
         return [](AttackContext const& c) {
           CounterRandom const random(c.seed, kVote + (c.member << 8U), c.step);
           Row row(c.own.size());
           for (std::size_t i = 0; i < row.size(); ++i) row[i] = random.uniform(i) < 0.5 ? -1 : 1;
           return row;
         };
       }},
      {"inverse_vote",
       "in each element -1 where most honest votes are above 0, else +1",
       kOmniscient,
       {},
       [](Arguments&) -> MakeRow {
         return [](AttackContext const& c) {
           Row row(c.own.size());
           for (std::size_t i = 0; i < row.size(); ++i) {
             int votes = 0;
             for (auto const& honest : c.honest) votes += honest[i] > 0 ? 1 : honest[i] < 0 ? -1 : 0;
             row[i] = votes > 0 ? -1 : 1;
           }
           return row;
         };
       }},
      {"zero", "zeros", kLocal, {"where"}, [](Arguments& a) -> MakeRow { return damaged(a, 0); }},
  };
  return table;
}

}  // namespace

Attack::Attack(std::shared_ptr<Impl const> impl) : impl_(std::move(impl)) {}

Attack Attack::parse(std::string_view text) {
  auto call = rules::parse_call(text);
  auto const& table = entries();
  auto const found = std::find_if(table.begin(), table.end(), [&](Entry const& e) { return e.name == call.name; });
  if (found == table.end()) {
    std::vector<std::string> names;
    for (auto const& entry : table) names.push_back(entry.name);
    throw Error(Errc::bad_argument, "unknown attack '" + call.name + "'; did you mean '" +
                                        rules::nearest_name(call.name, names) +
                                        "'? Attacks: " + rules::list_of_names(names));
  }
  Arguments arguments(std::move(call), found->positional);
  auto impl = std::make_shared<Impl>();
  impl->make_row = found->make(arguments);
  arguments.finish();
  impl->text = arguments.canonical_text();
  impl->knowledge = found->knowledge;
  impl->flips_labels = found->name == "label_flip";
  impl->knows_rule = found->name.rfind("optimal_", 0) == 0;
  return Attack(std::move(impl));
}

std::vector<AttackDescription> Attack::all() {
  std::vector<AttackDescription> descriptions;
  for (auto const& entry : entries()) {
    Arguments defaults({entry.name, {}}, {});
    (void)entry.make(defaults);
    descriptions.push_back({entry.name, entry.row, defaults.parameters_with_defaults(), entry.knowledge});
  }
  return descriptions;
}

std::string const& Attack::text() const {
  return impl_->text;
}

AttackKnowledge Attack::knowledge() const {
  return impl_->knowledge;
}

bool Attack::knows_rule() const {
  return impl_->knows_rule;
}

bool Attack::flips_labels() const {
  return impl_->flips_labels;
}

void Attack::make_row(AttackInput const& input, std::span<float> out) const {
  if (out.size() != input.own.size())
    throw Error(Errc::bad_argument, "attack " + text() + ": the row to write has " + std::to_string(out.size()) +
                                        " elements, the own row " + std::to_string(input.own.size()));
  auto const copy_rows = [&](std::span<std::span<float const> const> rows, char const* whose) {
    if (rows.empty()) throw Error(Errc::bad_argument, "attack " + text() + " needs the " + whose + " rows of the step");
    std::vector<Row> copies;
    for (auto const& row : rows) {
      if (row.size() != input.own.size())
        throw Error(Errc::bad_argument, "attack " + text() + ": " + whose + " rows and the own row differ in length");
      copies.emplace_back(row.begin(), row.end());
    }
    return copies;
  };
  if (knows_rule() && input.rule == nullptr)
    throw Error(Errc::bad_argument, "attack " + text() + " needs the rule that it is to deceive");
  AttackMemory first_step;
  AttackContext context;
  context.own.assign(input.own.begin(), input.own.end());
  if (knowledge() == AttackKnowledge::omniscient) context.honest = copy_rows(input.honest, "honest");
  if (knowledge() == AttackKnowledge::colluding) context.colluding = copy_rows(input.colluding, "attackers'");
  context.contributions = input.contributions;
  context.byzantine = input.byzantine;
  context.step = input.step;
  context.member = input.member;
  context.seed = input.seed;
  context.rule = input.rule;
  context.center.assign(input.center.begin(), input.center.end());
  context.memory = input.memory != nullptr ? input.memory : &first_step;
  auto const row = impl_->make_row(context);
  ++context.memory->steps;
  std::transform(row.begin(), row.end(), out.begin(), [](double value) { return static_cast<float>(value); });
}

}  // namespace holdfast
