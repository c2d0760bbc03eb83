#include <algorithm>
#include <cstdio>
#include <string>

#include <holdfast/collectives/rule.hpp>

#include "commands.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

char const* kind_text(RuleKind kind) {
  switch (kind) {
    case RuleKind::linear:
      return "linear";
    case RuleKind::coordinate:
      return "coordinate";
    case RuleKind::both:
      return "both";
  }
  return "";
}

}  // namespace

int rules_command(int argc, char** argv) {
  if (argc > 1) {
    std::string const word = argv[1];
    if (word != "--help" && word != "-h") throw UsageError("unexpected '" + word + "'; usage: holdfast rules");
    std::printf(
        "Usage: holdfast rules\n\nLists the aggregation rules of this build, each with its bound on the number f of "
        "Byzantine contributions among n,\nits parameters and its source. Mixers come before a rule, joined by +: "
        "nnm+trimmed_mean.\nkind: linear rules weigh whole rows (they need the Gram matrix or nothing), coordinate "
        "rules work on each element.\n");
    return 0;
  }
  auto const rules = Rule::all();
  int widths[] = {4, 5, 5, 10};
  for (auto const& rule : rules) {
    widths[0] = std::max(widths[0], static_cast<int>(rule.name.size()));
    widths[1] = std::max(widths[1], static_cast<int>(rule.bound.size()));
    widths[2] = std::max(widths[2], static_cast<int>(std::string(kind_text(rule.kind)).size()));
    widths[3] = std::max(widths[3], static_cast<int>(rule.parameters.size()));
  }
  for (bool const mixers : {false, true}) {
    std::printf("%s%-*s  %-*s  %-*s  %-*s  %s\n", mixers ? "\n" : "", widths[0], mixers ? "mixer" : "rule", widths[1],
                "bound", widths[2], "kind", widths[3], "parameters", "source");
    for (auto const& rule : rules)
      if (rule.is_mixer == mixers)
        std::printf("%-*s  %-*s  %-*s  %-*s  %s\n", widths[0], rule.name.c_str(), widths[1], rule.bound.c_str(),
                    widths[2], kind_text(rule.kind), widths[3], rule.parameters.c_str(), rule.source.c_str());
  }
  return 0;
}

}  // namespace holdfast::launch
