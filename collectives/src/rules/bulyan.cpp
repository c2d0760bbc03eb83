#include <algorithm>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// Picks n-2f rows one by one, each time the Krum winner of those that are left; then per coordinate the mean of the
/// n-4f values of the picked rows closest to their median.
class Bulyan final : public SelectingRule {
 public:
  [[nodiscard]] std::vector<int> select(Statistics const& statistics) const override {
    int const f = statistics.byzantine;
    auto const distances = statistics.gram.squared_distances();
    std::vector<int> alive;
    for (int row = 0; row < statistics.contributions; ++row) alive.push_back(row);
    std::vector<int> chosen;
    for (int round = 0; round < statistics.contributions - 2 * f; ++round) {
      int const neighbours = std::max(static_cast<int>(alive.size()) - f - 2, 1);
      std::vector<double> scores;
      for (int const i : alive) {
        std::vector<double> others;
        for (int const j : alive)
          if (j != i) others.push_back(distances(i, j));
        std::sort(others.begin(), others.end());
        double score = 0;
        for (std::size_t k = 0; k < std::min(others.size(), static_cast<std::size_t>(neighbours)); ++k)
          score += others[k];
        scores.push_back(score);
      }
      auto const winner = alive.begin() + order(scores).front();
      chosen.push_back(*winner);
      alive.erase(winner);
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  }

  [[nodiscard]] CoordinateKernel kernel(int contributions, int byzantine) const override {
    return {CoordinateKernel::Kind::closest_to_median, 0, contributions - 4 * byzantine};
  }
};

}  // namespace

Entry bulyan_entry() {
  return {"bulyan",
          "El Mhamdi, Guerraoui, Rouault: The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018",
          {"n >= 4f + 3 (f = 0: any n)", [](int n, int f) { return f == 0 ? n >= 1 : n >= 4 * f + 3; }},
          RuleKind::both,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<Bulyan>(); }};
}

}  // namespace holdfast::rules
