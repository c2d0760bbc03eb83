#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <holdfast/collectives/rule.hpp>

#include "rules/arguments.hpp"
#include "rules/interfaces.hpp"

namespace holdfast::rules {

/// The bound on f that makes a rule's guarantee hold.
struct Bound {
  char const* text;
  bool (*holds)(int contributions, int byzantine);
};

inline constexpr Bound kLessThanAll{"f < n", [](int n, int f) { return f < n; }};
inline constexpr Bound kLessThanHalf{"2f < n", [](int n, int f) { return 2 * f < n; }};

/// A rule or mixer as the table of rules shows it, and how to make one.
struct Entry {
  std::string name;
  std::string source;
  Bound bound;
  RuleKind kind;
  bool is_mixer;
  std::vector<std::string> positional;  ///< parameters that may be given without their name
  std::unique_ptr<Step> (*make)(Arguments& arguments);
};

/// All of them, in the order of the documentation. To add one: write its file, list it in registry.cpp.
[[nodiscard]] std::span<Entry const> registry();

}  // namespace holdfast::rules
