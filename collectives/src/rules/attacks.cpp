#include <algorithm>
#include <cmath>
#include <limits>

#include <holdfast/runtime/error.hpp>

#include "rules/arguments.hpp"
#include "rules/attack_impl.hpp"
#include "rules/counter_random.hpp"

namespace holdfast {
namespace {

using rules::Arguments;
using rules::CounterRandom;
using Row = std::vector<double>;
using MakeRow = std::function<Row(AttackContext const&)>;

enum Purpose : std::uint64_t { kGaussian = 1, kUniform = 2, kDirection = 3, kDrift = 4 };

Row mean(AttackContext const& context) {
  Row mu(context.honest.front().size(), 0);
  for (auto const& row : context.honest)
    for (std::size_t i = 0; i < mu.size(); ++i) mu[i] += row[i];
  for (auto& value : mu) value /= static_cast<double>(context.honest.size());
  return mu;
}

/// Per coordinate, divisor (number of honest rows - 1); zeros for a single row.
Row deviation(AttackContext const& context, Row const& mu) {
  Row sd(mu.size(), 0);
  if (context.honest.size() < 2) return sd;
  for (auto const& row : context.honest)
    for (std::size_t i = 0; i < mu.size(); ++i) sd[i] += (row[i] - mu[i]) * (row[i] - mu[i]);
  for (auto& value : sd) value = std::sqrt(value / static_cast<double>(context.honest.size() - 1));
  return sd;
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
      {"mimic",
       "a copy of honest row k",
       kOmniscient,
       {"k"},
       [](Arguments& a) -> MakeRow {
         int const k = a.integer("k", 0, 0, 65'535);
         return [=](AttackContext const& c) { return c.honest[static_cast<std::size_t>(k) % c.honest.size()]; };
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

bool Attack::flips_labels() const {
  return impl_->flips_labels;
}

void Attack::make_row(AttackInput const& input, std::span<float> out) const {
  if (out.size() != input.own.size())
    throw Error(Errc::bad_argument, "attack " + text() + ": the row to write has " + std::to_string(out.size()) +
                                        " elements, the own row " + std::to_string(input.own.size()));
  if (knowledge() == AttackKnowledge::omniscient && input.honest.empty())
    throw Error(Errc::bad_argument, "attack " + text() + " needs the honest rows of the step");
  AttackContext context;
  context.own.assign(input.own.begin(), input.own.end());
  if (knowledge() == AttackKnowledge::omniscient) {
    for (auto const& row : input.honest) {
      if (row.size() != input.own.size())
        throw Error(Errc::bad_argument, "attack " + text() + ": honest rows and the own row differ in length");
      context.honest.emplace_back(row.begin(), row.end());
    }
  }
  context.contributions = input.contributions;
  context.byzantine = input.byzantine;
  context.step = input.step;
  context.member = input.member;
  context.seed = input.seed;
  auto const row = impl_->make_row(context);
  std::transform(row.begin(), row.end(), out.begin(), [](double value) { return static_cast<float>(value); });
}

}  // namespace holdfast
