#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

/// Per coordinate: drop the f smallest and the f largest values, mean of the rest.
class TrimmedMean final : public CoordinateRule {
 public:
  [[nodiscard]] CoordinateKernel kernel(int /*contributions*/, int byzantine) const override {
    return {CoordinateKernel::Kind::trimmed_mean, byzantine};
  }
};

}  // namespace

Entry trimmed_mean_entry() {
  return {"trimmed_mean",
          "Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning, ICML 2018, definition 2",
          kLessThanHalf,
          RuleKind::coordinate,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<TrimmedMean>(); }};
}

}  // namespace holdfast::rules
