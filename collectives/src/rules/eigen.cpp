#include "rules/eigen.hpp"

#include <cmath>
#include <limits>

#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Jacobi converges quadratically after a few sweeps; the limit only bounds the time for hostile input.
constexpr int kSweeps = 60;

struct Rotation {
  double cosine;
  double sine;
  double tangent;

  /// The one that annihilates `off` between diagonal entries p and q (Golub and Van Loan, 8.5.2).
  static Rotation annihilating(double p, double off, double q) {
    double const theta = (q - p) / (2 * off);
    double const root = std::sqrt(1 + theta * theta);
    double const tangent = theta >= 0 ? 1 / (theta + root) : 1 / (theta - root);
    double const cosine = 1 / std::sqrt(1 + tangent * tangent);
    return {cosine, tangent * cosine, tangent};
  }
  void apply(std::vector<double>& p, std::vector<double>& q) const {
    for (std::size_t k = 0; k < p.size(); ++k) {
      double const x = p[k];
      double const y = q[k];
      p[k] = cosine * x - sine * y;
      q[k] = sine * x + cosine * y;
    }
  }
};

Matrix identity(std::size_t rows) {
  Matrix result(rows, std::vector<double>(rows, 0));
  for (std::size_t i = 0; i < rows; ++i) result[i][i] = 1;
  return result;
}

double dot(std::vector<double> const& a, std::vector<double> const& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

/// `vectors` by descending `keys`, ties in the order they have.
Matrix sorted_by(std::vector<double>& keys, Matrix const& vectors) {
  std::vector<double> negated;
  for (double const key : keys) negated.push_back(-key);
  Matrix sorted;
  std::vector<double> values;
  for (int const index : order(negated)) {
    sorted.push_back(vectors[static_cast<std::size_t>(index)]);
    values.push_back(keys[static_cast<std::size_t>(index)]);
  }
  keys = values;
  return sorted;
}

}  // namespace

Eigen symmetric_eigen(GramMatrix matrix) {
  int const n = matrix.rows();
  Matrix vectors = identity(static_cast<std::size_t>(n));
  bool rotated = true;
  for (int sweep = 0; sweep < kSweeps && rotated; ++sweep) {
    rotated = false;
    for (int p = 0; p < n; ++p) {
      for (int q = p + 1; q < n; ++q) {
        double const off = matrix(p, q);
        // Not even the last digits of the diagonal would change.
        if (std::abs(off) <= std::numeric_limits<double>::epsilon() / 8 * std::sqrt(std::abs(matrix(p, p))) *
                                 std::sqrt(std::abs(matrix(q, q))))
          continue;
        rotated = true;
        auto const rotation = Rotation::annihilating(matrix(p, p), off, matrix(q, q));
        matrix(p, p) -= rotation.tangent * off;
        matrix(q, q) += rotation.tangent * off;
        matrix(p, q) = matrix(q, p) = 0;
        for (int k = 0; k < n; ++k) {
          if (k == p || k == q) continue;
          double const x = matrix(k, p);
          double const y = matrix(k, q);
          matrix(k, p) = matrix(p, k) = rotation.cosine * x - rotation.sine * y;
          matrix(k, q) = matrix(q, k) = rotation.sine * x + rotation.cosine * y;
        }
        rotation.apply(vectors[static_cast<std::size_t>(p)], vectors[static_cast<std::size_t>(q)]);
      }
    }
  }
  Eigen result;
  for (int i = 0; i < n; ++i) result.values.push_back(matrix(i, i));
  result.vectors = sorted_by(result.values, vectors);
  return result;
}

Matrix left_singular_vectors(Matrix rows) {
  Matrix vectors = identity(rows.size());
  bool rotated = true;
  for (int sweep = 0; sweep < kSweeps && rotated; ++sweep) {
    rotated = false;
    for (std::size_t p = 0; p < rows.size(); ++p) {
      for (std::size_t q = p + 1; q < rows.size(); ++q) {
        double const pp = dot(rows[p], rows[p]);
        double const qq = dot(rows[q], rows[q]);
        double const pq = dot(rows[p], rows[q]);
        if (std::abs(pq) <= 4 * std::numeric_limits<double>::epsilon() * std::sqrt(pp) * std::sqrt(qq)) continue;
        rotated = true;
        auto const rotation = Rotation::annihilating(pp, pq, qq);
        rotation.apply(rows[p], rows[q]);
        rotation.apply(vectors[p], vectors[q]);
      }
    }
  }
  std::vector<double> squared;
  for (auto const& row : rows) squared.push_back(dot(row, row));
  return sorted_by(squared, vectors);
}

}  // namespace holdfast::rules
