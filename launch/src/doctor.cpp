#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <holdfast/runtime/version.hpp>

#include "checks.hpp"
#include "commands.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr char kHelp[] = R"(Usage: holdfast doctor [--json]

Says how this build was made, which fabrics work here, what the machine allows, and which settings are in force. Each
problem comes with its remedy. (Also --check-build.)

Exit status: 0 if holdfast can be used here, 1 if not.
)";

void print_text(std::vector<Check> const& checks, bool is_usable) {
  bool const is_coloured = isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr;
  std::string section;
  for (auto const& check : checks) {
    if (check.section != section) {
      section = check.section;
      std::printf("%s\n", section.c_str());
    }
    char const* const mark = check.verdict == Verdict::good      ? "ok"
                             : check.verdict == Verdict::warning ? "warn"
                             : check.verdict == Verdict::problem ? "FAIL"
                                                                 : "";
    char const* const colour = !is_coloured                        ? ""
                               : check.verdict == Verdict::good    ? "\033[32m"
                               : check.verdict == Verdict::warning ? "\033[33m"
                               : check.verdict == Verdict::problem ? "\033[31m"
                                                                   : "";
    std::printf("  %s%-4s%s  %-18s %s\n", colour, mark, *colour != '\0' ? "\033[0m" : "", check.name.c_str(),
                check.value.c_str());
    if (!check.remedy.empty()) std::printf("        %-18s -> %s\n", "", check.remedy.c_str());
  }
  std::printf("%s\n", is_usable ? "holdfast can be used here" : "holdfast cannot be used here: see FAIL above");
}

void print_json(std::vector<Check> const& checks, bool is_usable) {
  nlohmann::ordered_json all{
      {"version", version()}, {"usable", is_usable}, {"checks", nlohmann::ordered_json::array()}};
  for (auto const& check : checks)
    all["checks"].push_back({{"section", check.section},
                             {"name", check.name},
                             {"verdict", name(check.verdict)},
                             {"value", check.value},
                             {"remedy", check.remedy}});
  // Values come from outside (variables, /proc) and need not be UTF-8.
  std::printf("%s\n", all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

}  // namespace

int doctor_command(int argc, char** argv) {
  cxxopts::Options options("holdfast doctor");
  options.add_options()("json", "")("check-build", "")("h,help", "");
  bool as_json = false;
  try {
    auto const given = options.parse(argc, argv);
    if (given.count("help") > 0) {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (!given.unmatched().empty())
      throw UsageError("unexpected '" + given.unmatched().front() + "'; valid: --json, --help");
    as_json = given.count("json") > 0;
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; valid: --json, --help");
  }

  std::vector<Check> checks;
  for (auto* const group : {check_build, check_fabrics, check_machine, check_settings}) {
    auto const found = group();
    checks.insert(checks.end(), found.begin(), found.end());
  }
  bool const is_usable =
      std::none_of(checks.begin(), checks.end(), [](Check const& check) { return check.verdict == Verdict::problem; });
  if (as_json)
    print_json(checks, is_usable);
  else
    print_text(checks, is_usable);
  return is_usable ? 0 : 1;
}

}  // namespace holdfast::launch
