#include "rules/registry.hpp"

namespace holdfast::rules {
namespace {

/// The middle value of each coordinate; of an even number the average of the two middle ones, or the lower one.
class Median final : public CoordinateRule {
 public:
  explicit Median(bool lower) : lower_(lower) {}
  [[nodiscard]] CoordinateKernel kernel(int /*contributions*/, int /*byzantine*/) const override {
    return {lower_ ? CoordinateKernel::Kind::median_lower : CoordinateKernel::Kind::median, 0};
  }

 private:
  bool lower_;
};

}  // namespace

Entry median_entry() {
  return {"median",
          "Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning, ICML 2018",
          kLessThanHalf,
          RuleKind::coordinate,
          false,
          {"lower"},
          [](Arguments& arguments) -> std::unique_ptr<Step> {
            return std::make_unique<Median>(arguments.choice("lower", "no", {"no", "yes"}) == "yes");
          }};
}

}  // namespace holdfast::rules
