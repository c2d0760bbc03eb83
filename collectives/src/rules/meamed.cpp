#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

/// Per coordinate: mean of the n-f values closest to the median.
class Meamed final : public CoordinateRule {
 public:
  [[nodiscard]] CoordinateKernel kernel(int contributions, int byzantine) const override {
    return {CoordinateKernel::Kind::closest_to_median, 0, contributions - byzantine};
  }
};

/// Per coordinate: mean of the n-f values closest to the trimmed mean.
class Phocas final : public CoordinateRule {
 public:
  [[nodiscard]] CoordinateKernel kernel(int contributions, int byzantine) const override {
    return {CoordinateKernel::Kind::closest_to_trimmed_mean, byzantine, contributions - byzantine};
  }
};

}  // namespace

Entry meamed_entry() {
  return {"meamed",
          "Xie, Koyejo, Gupta: Generalized Byzantine-tolerant SGD, 2018, arXiv 1802.10116",
          kLessThanHalf,
          RuleKind::coordinate,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<Meamed>(); }};
}

Entry phocas_entry() {
  return {"phocas",
          "Xie, Koyejo, Gupta: Phocas: dimensional Byzantine-resilient SGD, 2018, arXiv 1805.09682",
          kLessThanHalf,
          RuleKind::coordinate,
          false,
          {},
          [](Arguments&) -> std::unique_ptr<Step> { return std::make_unique<Phocas>(); }};
}

}  // namespace holdfast::rules
