#pragma once

#include <memory>
#include <string>
#include <vector>

#include <holdfast/collectives/rule.hpp>

#include "rules/interfaces.hpp"
#include "rules/registry.hpp"

namespace holdfast {

/// A parsed expression: mixers in order, then exactly one of the three kinds of final rule.
struct Rule::Impl {
  struct NamedMixer {
    rules::Entry const* entry;
    std::unique_ptr<rules::Mixer> mixer;
  };
  std::vector<NamedMixer> mixers;
  rules::Entry const* entry = nullptr;
  std::unique_ptr<rules::LinearRule> linear;
  std::unique_ptr<rules::CoordinateRule> coordinate;
  std::unique_ptr<rules::SelectingRule> selecting;

  [[nodiscard]] rules::Step const& final_step() const {
    if (linear) return *linear;
    if (coordinate) return *coordinate;
    return *selecting;
  }
  std::string text;
};

}  // namespace holdfast
