#include "rules/flag.hpp"

#include <algorithm>
#include <cmath>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Keeps the weight of a vector that lies in the subspace finite.
constexpr double kFloor = 1e-7;
/// Two rows this close (squared, as unit vectors) have no direction between them, only rounding noise.
constexpr double kNoDirection = 1e-12;
constexpr double kConverged = 1e-10;
/// Relative to the largest eigenvalue: below it a direction of the span is rounding noise.
constexpr double kNoSpan = 1e-13;

/// x^(-1/4) by exactly rounded operations.
double inverse_fourth_root(double x) {
  return 1 / std::sqrt(std::sqrt(x));
}

/// The unit rows in an orthonormal basis of their span, and the way back to the rows.
struct Coordinates {
  Matrix rows;                        ///< rows[k][i]: coordinate k of unit row i
  std::vector<double> inverse_roots;  ///< of the eigenvalues that were kept
  Matrix eigenvectors;

  explicit Coordinates(GramMatrix const& unit_gram) {
    auto eigen = symmetric_eigen(unit_gram);
    double const largest = eigen.values.empty() ? 0 : eigen.values.front();
    for (std::size_t k = 0; k < eigen.values.size(); ++k) {
      if (!(eigen.values[k] > kNoSpan * largest)) break;
      double const root = std::sqrt(eigen.values[k]);
      inverse_roots.push_back(1 / root);
      eigenvectors.push_back(eigen.vectors[k]);
      rows.push_back(eigen.vectors[k]);
      for (auto& value : rows.back()) value *= root;
    }
  }
};

/// The squared length of each column's part in the subspace spanned by `basis`.
std::vector<double> squared_parts(Matrix const& projected) {
  std::vector<double> squared(projected.empty() ? 0 : projected.front().size(), 0);
  for (auto const& row : projected)
    for (std::size_t i = 0; i < row.size(); ++i) squared[i] += row[i] * row[i];
  return squared;
}

/// basis (each a vector of coordinates) times columns.
Matrix project(Matrix const& basis, Matrix const& rows, std::size_t columns) {
  Matrix result(basis.size(), std::vector<double>(columns, 0));
  for (std::size_t b = 0; b < basis.size(); ++b)
    for (std::size_t k = 0; k < rows.size(); ++k)
      for (std::size_t i = 0; i < columns; ++i) result[b][i] += basis[b][k] * rows[k][i];
  return result;
}

double data_term(std::vector<double> const& values) {
  double sum = 0;
  for (double const value : values) sum += std::sqrt(std::max(1 - value, 0.0));
  return sum;
}

/// The weighted columns of one iteration, as rows of coordinates. `projected` is Y^T u.
Matrix weighted_columns(Matrix const& rows, Matrix const& projected, std::vector<double> const& values,
                        FlagParameters const& parameters) {
  auto const p = values.size();
  Matrix columns(rows.size());
  for (std::size_t i = 0; i < p; ++i) {
    double const weight = inverse_fourth_root(std::abs(1 - values[i]) + kFloor);
    for (std::size_t k = 0; k < rows.size(); ++k) columns[k].push_back(rows[k][i] * weight);
  }
  if (parameters.lambda == 0 || p < 2) return columns;

  double const others = static_cast<double>(p - 1);
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < p; ++j) {
      if (i == j) continue;
      double length = 0;
      for (auto const& row : rows) length += (row[i] - row[j]) * (row[i] - row[j]);
      double inside = 0;
      for (auto const& row : projected) inside += (row[i] - row[j]) * (row[i] - row[j]);
      double weight = 0;
      if (parameters.raw_pairs) {
        weight =
            inverse_fourth_root(std::abs(1 - inside) + kFloor) * parameters.lambda / (static_cast<double>(p) * others);
      } else {
        if (length <= kNoDirection) continue;
        weight = inverse_fourth_root(std::max(1 - inside / length, 0.0) + kFloor) *
                 std::sqrt(parameters.lambda / others) / std::sqrt(length);
      }
      for (std::size_t k = 0; k < rows.size(); ++k) columns[k].push_back((rows[k][i] - rows[k][j]) * weight);
    }
  }
  return columns;
}

}  // namespace

FlagResult flag_aggregate(GramMatrix const& gram, FlagParameters const& parameters, Matrix const& start) {
  int const n = gram.rows();
  auto const p = static_cast<std::size_t>(n);
  int const dimension = parameters.dimension > 0 ? parameters.dimension : n / 2 + 1;

  std::vector<double> norms;
  for (int i = 0; i < n; ++i) norms.push_back(std::sqrt(std::max(gram(i, i), 0.0)));
  GramMatrix unit(n);
  for (int i = 0; i < n; ++i) {
    double const row = norms[static_cast<std::size_t>(i)];
    if (row > 0) unit(i, i) = 1;
    for (int j = i + 1; j < n; ++j) {
      double const column = norms[static_cast<std::size_t>(j)];
      unit(i, j) = unit(j, i) = row > 0 && column > 0 ? gram(i, j) / row / column : 0;
    }
  }
  Coordinates const coordinates(unit);

  FlagResult result;
  result.coefficients.assign(p, 0);
  Matrix basis;
  Matrix projected = start;
  result.values = start.empty() ? std::vector<double>(p, 0) : squared_parts(start);
  double objective = data_term(result.values);
  result.trace.push_back(objective);
  result.keeps_start = !start.empty();
  for (int iteration = 0; iteration < parameters.iterations && objective > kConverged; ++iteration) {
    auto next = left_singular_vectors(weighted_columns(coordinates.rows, projected, result.values, parameters));
    next.resize(std::min(next.size(), static_cast<std::size_t>(dimension)));
    auto next_projected = project(next, coordinates.rows, p);
    auto next_values = next.empty() ? std::vector<double>(p, 0) : squared_parts(next_projected);
    double const next_objective = data_term(next_values);
    if (!(next_objective < objective)) break;
    double const gain = objective - next_objective;
    basis = std::move(next);
    projected = std::move(next_projected);
    result.values = std::move(next_values);
    result.keeps_start = false;
    objective = next_objective;
    result.trace.push_back(objective);
    if (gain <= kConverged) break;
  }

  // target = scale * Y Y^T sum_i (length_i) u_i, then back to coefficients of the rows.
  double scale = 1.0 / n;
  std::vector<double> lengths(p, 1);
  if (parameters.scale == FlagScale::unit) {
    scale = 1.0 / dimension;
  } else if (parameters.scale == FlagScale::median) {
    scale = median(norms) / n;
  } else {
    lengths = norms;
  }
  std::vector<double> target(coordinates.rows.size(), 0);
  for (std::size_t b = 0; b < basis.size(); ++b) {
    double along = 0;
    for (std::size_t i = 0; i < p; ++i) along += projected[b][i] * lengths[i];
    for (std::size_t k = 0; k < target.size(); ++k) target[k] += scale * along * basis[b][k];
  }
  for (std::size_t k = 0; k < target.size(); ++k)
    for (std::size_t i = 0; i < p; ++i)
      result.coefficients[i] += coordinates.eigenvectors[k][i] * coordinates.inverse_roots[k] * target[k];
  for (std::size_t i = 0; i < p; ++i) result.coefficients[i] = norms[i] > 0 ? result.coefficients[i] / norms[i] : 0;
  return result;
}

namespace {

/// The rows' sum, projected on the subspace that most of their directions lie in.
class Flag final : public LinearRule {
 public:
  explicit Flag(FlagParameters const& parameters) : parameters_(parameters) {}
  [[nodiscard]] bool uses_origin() const override { return true; }
  [[nodiscard]] bool keeps_single_row() const override { return false; }
  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    return std::vector{Combination{flag_aggregate(statistics.gram, parameters_).coefficients, false, 0}};
  }

 private:
  FlagParameters parameters_;
};

}  // namespace

Entry flag_entry() {
  return {
      "flag",
      "Almasi, Mishra, Vamanan, Ravi: Flag Aggregator, ICLR 2024",
      kLessThanAll,
      RuleKind::linear,
      false,
      {"dimension"},
      [](Arguments& arguments) -> std::unique_ptr<Step> {
        FlagParameters parameters;
        auto const dimension = arguments.integer_or_word("dimension", "ceil((n+1)/2)", 1, 65'536, {"ceil((n+1)/2)"});
        parameters.dimension = dimension.integer.value_or(0);
        parameters.iterations = arguments.integer("iterations", 5, 1, 100'000);
        parameters.lambda = arguments.number("lambda", 0, {0, 1e300, false});
        auto const scale = arguments.choice("scale", "unit", {"unit", "median", "paper"});
        parameters.scale = scale == "unit" ? FlagScale::unit : scale == "median" ? FlagScale::median : FlagScale::paper;
        parameters.raw_pairs = arguments.choice("pairs", "normalized", {"normalized", "raw"}) == "raw";
        return std::make_unique<Flag>(parameters);
      }};
}

}  // namespace holdfast::rules
