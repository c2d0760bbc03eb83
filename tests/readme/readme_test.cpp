#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/config.hpp>

namespace holdfast {
namespace {

std::string readme() {
  std::ifstream const file(HOLDFAST_README);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string rules_table() {
  std::string table = "| rule | source | parameters | bound on f | kind |\n|---|---|---|---|---|\n";
  for (auto const& rule : Rule::all()) {
    char const* const kind = rule.is_mixer                       ? "mixer"
                             : rule.kind == RuleKind::linear     ? "linear"
                             : rule.kind == RuleKind::coordinate ? "coordinate"
                                                                 : "both";
    table +=
        "| `" + rule.name + "` | " + rule.source + " | " + rule.parameters + " | " + rule.bound + " | " + kind + " |\n";
  }
  return table;
}

TEST(Readme, lists_every_setting_as_the_program_knows_it) {
  EXPECT_NE(readme().find(Config::documentation()), std::string::npos) << "put this table under Settings:\n"
                                                                       << Config::documentation();
}

TEST(Readme, lists_every_rule_as_the_program_knows_it) {
  EXPECT_NE(readme().find(rules_table()), std::string::npos) << "put this table under Rules:\n" << rules_table();
}

}  // namespace
}  // namespace holdfast
