// `holdfast bench rules`: what a rule costs one thread that holds all rows.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include <holdfast/collectives/local_aggregation.hpp>
#include <holdfast/collectives/rule.hpp>
#include <holdfast/runtime/error.hpp>

#include "commands.hpp"
#include "rule_timing.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr std::string_view kHelp = R"(Usage: holdfast bench rules [options]

Times aggregation rules on one thread that holds all rows (float32, normally distributed): Gram matrix, coefficients and
combination. Without --rule it takes every rule of this build, each mixer before the trimmed mean, and nnm before each
coordinate rule.

      --members N          rows; default 16
      --elements D         of each row; default 1000000
      --byzantine F        f; default 3
      --rule R             a rule, for example nnm+geometric_median; may be repeated
      --seconds S          per rule, for repetitions; at least 3; default 0.5
      --json               one JSON object per rule instead of the table
  -h, --help               this text

JSON keys: rule, byzantine, members, elements, threads, median_s, min_s, max_s, iterations; rules that cannot tolerate f
of these members are left out of the list, and refused when they were asked for.
)";

std::vector<std::string> every_rule() {
  std::vector<std::string> texts;
  for (auto const& rule : Rule::all()) texts.push_back(rule.is_mixer ? rule.name + "+trimmed_mean" : rule.name);
  for (auto const& rule : Rule::all())
    if (rule.kind == RuleKind::coordinate && rule.name != "trimmed_mean") texts.push_back("nnm+" + rule.name);
  return texts;
}

}  // namespace

int bench_rules_command(int argc, char** argv) {
  cxxopts::Options description("holdfast bench rules");
  auto add = description.add_options();
  auto const text = [](char const* fallback) { return cxxopts::value<std::string>()->default_value(fallback); };
  add("members", "", text("16"));
  add("elements", "", text("1000000"));
  add("byzantine", "", text("3"));
  add("seconds", "", text("0.5"));
  add("rule", "", cxxopts::value<std::vector<std::string>>());
  add("json", "");
  add("h,help", "");
  std::optional<cxxopts::ParseResult> given;
  try {
    given = description.parse(argc, argv);
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast bench rules --help");
  }
  if (given->count("help") != 0) return std::fputs(std::string(kHelp).c_str(), stdout), 0;
  if (!given->unmatched().empty())
    throw UsageError("unexpected '" + given->unmatched().front() + "'; see holdfast bench rules --help");
  auto const option = [&](char const* name) { return (*given)[name].as<std::string>(); };
  RuleTimingOptions options;
  options.members = static_cast<int>(parse_integer("--members", option("members"), 1, 1024));
  options.elements = static_cast<std::size_t>(parse_integer("--elements", option("elements"), 0, 1L << 32));
  options.byzantine = static_cast<int>(parse_integer("--byzantine", option("byzantine"), 0, 1024));
  options.seconds = parse_seconds("--seconds", option("seconds"));
  bool const is_chosen = given->count("rule") != 0;
  bool const as_json = given->count("json") != 0;
  auto const texts = is_chosen ? (*given)["rule"].as<std::vector<std::string>>() : every_rule();

  std::vector<Rule> rules;
  for (auto const& rule_text : texts) {
    auto const rule = Rule::parse(rule_text);
    auto const fits = rule.check_bounds(options.members, options.byzantine);
    if (!fits && is_chosen) throw UsageError("--byzantine: " + fits.error().detail);
    if (fits) rules.push_back(rule);
  }
  RuleTimer timer(options);
  if (!as_json) std::printf("%-28s %10s %10s %10s\n", "rule", "median ms", "min ms", "max ms");
  for (auto const& rule : rules) {
    auto const timing = timer.time(rule);
    if (as_json) {
      nlohmann::ordered_json const line{{"rule", rule.text()},
                                        {"byzantine", options.byzantine},
                                        {"members", options.members},
                                        {"elements", options.elements},
                                        {"threads", 1},
                                        {"median_s", timing.median_s},
                                        {"min_s", timing.min_s},
                                        {"max_s", timing.max_s},
                                        {"iterations", timing.iterations}};
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf("%-28s %10.3f %10.3f %10.3f\n", rule.text().c_str(), timing.median_s * 1e3, timing.min_s * 1e3,
                  timing.max_s * 1e3);
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace holdfast::launch
