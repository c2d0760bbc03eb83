#include <algorithm>
#include <cmath>

#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

/// s_i = sum over the q nearest rows of distance^power; the mean of the m rows with the least score.
///
/// q = n-f-2 (neighbors = paper) or n-f-1 (wide, as in ByzFL and Garfield). m = 1 is Krum.
class Krum final : public LinearRule {
 public:
  struct Chosen {
    int rows = 1;           ///< m if `below_honest` is negative
    int below_honest = -1;  ///< m = n - f - below_honest
    [[nodiscard]] int of(int n, int f) const { return below_honest < 0 ? rows : n - f - below_honest; }
  };
  Krum(bool wide, int power, Chosen chosen) : wide_(wide), power_(power), chosen_(chosen) {}

  [[nodiscard]] std::string unmet_demand(int n, int f) const override {
    int const m = chosen_.of(n, f);
    if (m >= 1 && m <= n - f) return {};
    return "m = " + std::to_string(m) + " must be from 1 to n - f = " + std::to_string(n - f);
  }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    int const n = statistics.contributions;
    auto const neighbours = static_cast<std::size_t>(n - statistics.byzantine - (wide_ ? 1 : 2));
    auto const distances = statistics.gram.squared_distances();
    std::vector<double> scores;
    for (int i = 0; i < n; ++i) {
      std::vector<double> others;
      for (int j = 0; j < n; ++j) {
        if (j == i) continue;
        double const squared = distances(i, j);
        others.push_back(power_ == 1 ? std::sqrt(squared) : power_ == 2 ? squared : squared * squared);
      }
      std::sort(others.begin(), others.end());
      double score = 0;
      for (std::size_t k = 0; k < neighbours; ++k) score += others[k];
      scores.push_back(score);
    }
    return std::vector{Combination::mean_of(n, closest(scores, chosen_.of(n, statistics.byzantine)))};
  }

 private:
  bool wide_;
  int power_;
  Chosen chosen_;
};

constexpr char const* kSource =
    "Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries, NeurIPS 2017";
constexpr Bound kBound{"2f + 2 < n", [](int n, int f) { return 2 * f + 2 < n; }};

std::unique_ptr<Step> make(Arguments& arguments, Krum::Chosen chosen) {
  bool const wide = arguments.choice("neighbors", "paper", {"paper", "wide"}) == "wide";
  auto const power = arguments.choice("power", "2", {"1", "2", "4"});
  return std::make_unique<Krum>(wide, power[0] - '0', chosen);
}

}  // namespace

Entry krum_entry() {
  return {
      "krum", kSource, kBound, RuleKind::linear, false, {}, [](Arguments& arguments) {
            return make(arguments, {}); }};
}

Entry multi_krum_entry() {
  return {"multi_krum", kSource, kBound, RuleKind::linear, false, {"m"}, [](Arguments& arguments) {
            auto const m = arguments.integer_or_word("m", "n-f", 1, 65'536, {"n-f", "n-f-2"});
            Krum::Chosen chosen;
            if (m.integer) {
              chosen.rows = *m.integer;
            } else {
              chosen.below_honest = m.word == "n-f" ? 0 : 2;
            }
            return make(arguments, chosen);
          }};
}

}  // namespace holdfast::rules
