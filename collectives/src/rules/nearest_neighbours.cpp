#include "rules/registry.hpp"
#include "rules/selection.hpp"

namespace holdfast::rules {
namespace {

std::vector<double> row_of(GramMatrix const& matrix, int row) {
  std::vector<double> values;
  for (int j = 0; j < matrix.rows(); ++j) values.push_back(matrix(row, j));
  return values;
}

/// y_i = mean of the n-f rows closest to row i, itself included. With repeat > 1 the result becomes the point from
/// which distances are measured; the rows stay the same.
class NearestNeighbourAveraging final : public LinearRule {
 public:
  NearestNeighbourAveraging(int pivot, int repeat) : pivot_(pivot), repeat_(repeat) {}

  [[nodiscard]] bool is_per_member() const override { return pivot_ < 0; }

  [[nodiscard]] Outcome<std::vector<Combination>> coefficients(Statistics const& statistics) const override {
    int const n = statistics.contributions;
    auto const distances = statistics.gram.squared_distances();
    std::vector<Combination> outputs;
    for (int row = 0; row < n; ++row) {
      if (pivot_ >= 0 && statistics.ranks[static_cast<std::size_t>(row)] != pivot_) continue;
      outputs.push_back(average_around(row, distances, statistics));
    }
    if (outputs.empty())
      return fail(Errc::too_many_faulty_rows,
                  "nna: the row of the pivot, rank " + std::to_string(pivot_) + ", did not arrive or was screened");
    return outputs;
  }

 private:
  [[nodiscard]] Combination average_around(int row, GramMatrix const& distances, Statistics const& statistics) const {
    int const n = statistics.contributions;
    int const neighbours = n - statistics.byzantine;
    auto result = Combination::mean_of(n, closest(row_of(distances, row), neighbours));
    if (repeat_ == 1) return result;
    PointDistances const from_point(statistics.gram, row);
    for (int again = 1; again < repeat_; ++again)
      result = Combination::mean_of(n, closest(from_point.to(result.coefficients), neighbours));
    return result;
  }

  int pivot_;
  int repeat_;
};

/// Replaces each row by the mean of the n-f rows closest to it, itself included.
class NearestNeighbourMixing final : public Mixer {
 public:
  [[nodiscard]] std::vector<Combination> mix(Statistics const& statistics) const override {
    auto const distances = statistics.gram.squared_distances();
    std::vector<Combination> mixture;
    for (int row = 0; row < statistics.contributions; ++row)
      mixture.push_back(Combination::mean_of(
          statistics.contributions, closest(row_of(distances, row), statistics.contributions - statistics.byzantine)));
    return mixture;
  }
};

}  // namespace

Entry nna_entry() {
  return {"nna",
          "Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan: Robust Collaborative Learning (MoNNA), ICML 2023",
          kLessThanHalf,
          RuleKind::linear,
          false,
          {"pivot"},
          [](Arguments& arguments) -> std::unique_ptr<Step> {
            auto const pivot = arguments.integer_or_word("pivot", "own", 0, 65'535, {"own"});
            int const repeat = arguments.integer("repeat", 1, 1, 100'000);
            return std::make_unique<NearestNeighbourAveraging>(pivot.integer.value_or(-1), repeat);
          }};
}

Entry nnm_entry() {
  return {"nnm",
          "Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan: Fixing by Mixing, AISTATS 2023",
          kLessThanHalf,
          RuleKind::linear,
          true,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<NearestNeighbourMixing>(); }};
}

}  // namespace holdfast::rules
