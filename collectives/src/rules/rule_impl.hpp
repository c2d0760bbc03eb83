#pragma once

#include <memory>
#include <string>
#include <vector>

#include <holdfast/collectives/rule.hpp>

#include "rules/interfaces.hpp"
#include "rules/registry.hpp"

namespace holdfast {

/// A parsed expression: mixers in order, then exactly one of the two kinds of final rule.
struct Rule::Impl {
  struct NamedMixer {
    rules::Entry const* entry;
    std::unique_ptr<rules::Mixer> mixer;
  };
  std::vector<NamedMixer> mixers;
  rules::Entry const* entry = nullptr;
  std::unique_ptr<rules::LinearRule> linear;
  std::unique_ptr<rules::CoordinateRule> coordinate;
  std::string text;
};

}  // namespace holdfast
