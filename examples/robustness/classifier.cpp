#include "classifier.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>

#include <holdfast/runtime/error.hpp>

namespace robustness {
namespace {

using Hidden = std::array<float, Classifier::kHidden>;
using Scores = std::array<float, Classifier::kClasses>;

/// Where the parts of the model lie in the flat vector.
struct Parts {
  float const* w1;
  float const* b1;
  float const* w2;
  float const* b2;

  explicit Parts(float const* first)
      : w1(first),
        b1(w1 + Classifier::kPixels * Classifier::kHidden),
        w2(b1 + Classifier::kHidden),
        b2(w2 + Classifier::kHidden * Classifier::kClasses) {}
};

void forward(Parts const& model, float const* pixels, Hidden& hidden, Scores& scores) {
  std::copy_n(model.b1, hidden.size(), hidden.begin());
  for (std::size_t i = 0; i < Classifier::kPixels; ++i)
    for (std::size_t j = 0; j < hidden.size(); ++j) hidden[j] += pixels[i] * model.w1[i * hidden.size() + j];
  for (auto& value : hidden) value = std::max(value, 0.0F);
  std::copy_n(model.b2, scores.size(), scores.begin());
  for (std::size_t j = 0; j < hidden.size(); ++j)
    for (std::size_t c = 0; c < scores.size(); ++c) scores[c] += hidden[j] * model.w2[j * scores.size() + c];
}

}  // namespace

Classifier::Classifier(examples::ImageTable table) : table_(std::move(table)), train_rows_(table_.rows() * 4 / 5) {
  bool const has_classes = std::all_of(table_.labels.begin(), table_.labels.end(), [](std::int64_t label) {
    return label >= 0 && label < static_cast<std::int64_t>(kClasses);
  });
  if (table_.columns != kPixels || !has_classes || table_.rows() < 10)
    throw holdfast::Error(holdfast::Errc::bad_argument, "the experiments need 8x8 images of ten classes; here are " +
                                                            std::to_string(table_.columns) +
                                                            " pixels; take build/data/digits.csv");
}

std::vector<float> Classifier::start(std::uint64_t seed) const {
  std::mt19937_64 random(1000 + seed);
  std::normal_distribution<double> normal;
  std::vector<float> parameters(kParameters, 0);
  auto const fill = [&](std::size_t from, std::size_t count, double fan_in) {
    for (std::size_t i = 0; i < count; ++i)
      parameters[from + i] = static_cast<float>(std::sqrt(2 / fan_in) * normal(random));
  };
  fill(0, kPixels * kHidden, kPixels);
  fill(kPixels * kHidden + kHidden, kHidden * kClasses, kHidden);
  return parameters;
}

void Classifier::gradient(std::span<float const> parameters, std::span<std::int64_t const> rows, bool flips_labels,
                          std::span<float> out) const {
  Parts const model(parameters.data());
  std::fill(out.begin(), out.end(), 0.0F);
  float* const w1 = out.data();
  float* const b1 = w1 + kPixels * kHidden;
  float* const w2 = b1 + kHidden;
  float* const b2 = w2 + kHidden * kClasses;
  Hidden hidden;
  Scores scores;
  for (auto const row : rows) {
    float const* const pixels = table_.pixels.data() + static_cast<std::size_t>(row) * kPixels;
    forward(model, pixels, hidden, scores);
    float const most = *std::max_element(scores.begin(), scores.end());
    float total = 0;
    for (auto& score : scores) total += score = std::exp(score - most);
    auto const label = static_cast<std::size_t>(table_.labels[static_cast<std::size_t>(row)]);
    for (auto& score : scores) score /= total;
    scores[flips_labels ? kClasses - 1 - label : label] -= 1;
    for (auto& score : scores) score /= static_cast<float>(rows.size());
    Hidden back{};
    for (std::size_t j = 0; j < kHidden; ++j) {
      for (std::size_t c = 0; c < kClasses; ++c) {
        w2[j * kClasses + c] += hidden[j] * scores[c];
        back[j] += model.w2[j * kClasses + c] * scores[c];
      }
      if (!(hidden[j] > 0)) back[j] = 0;
      b1[j] += back[j];
    }
    for (std::size_t c = 0; c < kClasses; ++c) b2[c] += scores[c];
    for (std::size_t i = 0; i < kPixels; ++i)
      for (std::size_t j = 0; j < kHidden; ++j) w1[i * kHidden + j] += pixels[i] * back[j];
  }
}

double Classifier::accuracy(std::span<float const> parameters) const {
  for (float const value : parameters)
    if (!std::isfinite(value)) return 0;
  Parts const model(parameters.data());
  Hidden hidden;
  Scores scores;
  std::size_t right = 0;
  for (std::size_t row = train_rows_; row < table_.rows(); ++row) {
    forward(model, table_.pixels.data() + row * kPixels, hidden, scores);
    auto const best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    right += best == table_.labels[row] ? 1 : 0;
  }
  return 100.0 * static_cast<double>(right) / static_cast<double>(table_.rows() - train_rows_);
}

}  // namespace robustness
