#include <algorithm>
#include <optional>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Which rows may not be in the same subset: an edge where two are farther apart than the diameter.
///
/// A subset of n-f rows without an edge is what is left by a vertex cover of f rows.
class Conflicts {
 public:
  Conflicts(GramMatrix const& distances, double diameter) : rows_(distances.rows()) {
    far_.assign(static_cast<std::size_t>(rows_), std::vector<char>(static_cast<std::size_t>(rows_), 0));
    for (int i = 0; i < rows_; ++i)
      for (int j = 0; j < rows_; ++j) far_[index(i)][index(j)] = i != j && distances(i, j) > diameter ? 1 : 0;
  }

  /// Whether at most `budget` of the rows that are not out yet cover every edge between them.
  [[nodiscard]] bool can_be_covered(std::vector<char>& out, int budget) const {
    int edges = 0;
    int most = 0;
    int vertex = -1;
    for (int i = 0; i < rows_; ++i) {
      int const degree = degree_of(i, out);
      edges += degree;
      if (degree > most) {
        most = degree;
        vertex = i;
      }
    }
    edges /= 2;
    if (edges == 0) return true;
    if (edges > budget * most) return false;  // each row covers `most` edges at best
    if (most == 1) return true;               // separate edges: one row each
    // Either the row of most edges is out, or all its neighbours are.
    out[index(vertex)] = 1;
    bool covered = can_be_covered(out, budget - 1);
    out[index(vertex)] = 0;
    if (covered || most > budget) return covered;
    std::vector<int> neighbours;
    for (int j = 0; j < rows_; ++j)
      if (out[index(j)] == 0 && far_[index(vertex)][index(j)] != 0) neighbours.push_back(j);
    for (int const j : neighbours) out[index(j)] = 1;
    covered = can_be_covered(out, budget - most);
    for (int const j : neighbours) out[index(j)] = 0;
    return covered;
  }

  /// The lexicographically first subset of `size` rows without an edge.
  [[nodiscard]] std::vector<int> first_subset(int size) const {
    std::vector<char> out(static_cast<std::size_t>(rows_), 0);
    std::vector<int> chosen;
    int left_out = 0;
    for (int i = 0; i < rows_ && static_cast<int>(chosen.size()) < size; ++i) {
      if (out[index(i)] != 0) continue;
      // Taking row i pushes all that are too far from it out.
      std::vector<char> with = out;
      int pushed = 0;
      for (int j = 0; j < rows_; ++j)
        if (with[index(j)] == 0 && far_[index(i)][index(j)] != 0) {
          with[index(j)] = 1;
          ++pushed;
        }
      int const budget = rows_ - size - left_out - pushed;
      if (budget >= 0 && can_be_covered(with, budget)) {
        chosen.push_back(i);
        out = with;
        left_out += pushed;
      } else {
        out[index(i)] = 1;
        ++left_out;
      }
    }
    return chosen;
  }

 private:
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  [[nodiscard]] int degree_of(int i, std::vector<char> const& out) const {
    if (out[index(i)] != 0) return 0;
    int degree = 0;
    for (int j = 0; j < rows_; ++j)
      degree += static_cast<int>(out[index(j)] == 0) & static_cast<int>(far_[index(i)][index(j)]);
    return degree;
  }

  int rows_;
  std::vector<std::vector<char>> far_;
};

/// The mean of the n-f rows of least diameter: the largest distance between two of them.
class MinimumDiameterAveraging final : public LinearRule {
 public:
  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    int const n = statistics.contributions;
    int const size = n - statistics.byzantine;
    auto const distances = statistics.gram.squared_distances();
    std::vector<double> diameters{0};
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) diameters.push_back(distances(i, j));
    std::sort(diameters.begin(), diameters.end());
    diameters.erase(std::unique(diameters.begin(), diameters.end()), diameters.end());
    std::size_t low = 0;
    std::size_t high = diameters.size() - 1;
    while (low < high) {
      std::size_t const middle = (low + high) / 2;
      std::vector<char> out(static_cast<std::size_t>(n), 0);
      if (Conflicts(distances, diameters[middle]).can_be_covered(out, n - size)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return std::vector{Combination::mean_of(n, Conflicts(distances, diameters[low]).first_subset(size))};
  }
};

}  // namespace

Entry mda_entry() {
  return {"mda",
          "El Mhamdi, Guerraoui, Guirguis, Hoang, Rouault: Genuinely Distributed Byzantine Machine Learning, PODC "
          "2020; Rousseeuw 1985",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<MinimumDiameterAveraging>(); }};
}

}  // namespace holdfast::rules
