#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <cxxopts.hpp>

#include <holdfast/collectives/rule.hpp>

#include "commands.hpp"
#include "rule_advice.hpp"
#include "rule_timing.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr char const* kHelp = R"(Usage: holdfast rules [options]

Lists the aggregation rules of this build, each with its bound on the number f of Byzantine contributions among n, its
parameters and its source. Mixers come before a rule, joined by +: nnm+trimmed_mean.
kind: linear rules weigh whole rows (they need the Gram matrix or nothing), coordinate rules work on each element.

With --members it says for that many members how large f may be, what a round costs and, measured here on one thread,
how long it takes; and it recommends a rule, with the reason.

      --members N      members of the job
      --byzantine F    members that may lie; default 1
      --elements D     parameters of the model, such as 11e6; default 1e6
      --non-iid        members train on different kinds of data
      --no-measure     leave the measured times out
  -h, --help           this text
)";

/// The most elements that are measured; the time of more is in proportion.
constexpr double kMostMeasured = 200'000;

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

/// Rows of cells, as wide as their widest; the last column is not padded.
void print_columns(std::vector<std::vector<std::string>> const& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (auto const& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (auto const& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - row[i].size() + 2, ' ');
    }
    std::printf("%s\n", line.c_str());
  }
}

void list_rules() {
  auto const rules = Rule::all();
  for (bool const mixers : {false, true}) {
    if (mixers) std::printf("\n");
    std::vector<std::vector<std::string>> table{
        {mixers ? "mixer" : "rule", "bound", "kind", "cost", "parameters", "source"}};
    for (auto const& rule : rules)
      if (rule.is_mixer == mixers)
        table.push_back({rule.name, rule.bound, kind_text(rule.kind), std::string(cost_of(rule.name)), rule.parameters,
                         rule.source});
    print_columns(table);
  }
}

struct Job {
  int members = 0;
  int byzantine = 1;
  double elements = 1e6;
  bool is_iid = true;
  bool measures = true;
};

double parse_elements(std::string const& text) {
  double value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 1 && value <= 1e13) ||
      value != std::floor(value))
    throw UsageError("--elements: '" + text + "' must be a whole number from 1 to 1e13, such as 11000000 or 11e6");
  return value;
}

std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g ms", seconds * 1e3);
  return text;
}

void advise_on(Job const& job) {
  RuleTimingOptions timing;
  timing.members = job.members;
  timing.elements = static_cast<std::size_t>(std::min(job.elements, kMostMeasured));
  timing.byzantine = job.byzantine;
  timing.seconds = 0.05;
  std::optional<RuleTimer> timer;
  if (job.measures) timer.emplace(timing);
  double const times = job.elements / static_cast<double>(timing.elements) / job.members;

  std::vector<std::vector<std::string>> table{{"rule", "bound", "largest f", "f = " + std::to_string(job.byzantine),
                                               "cost", job.measures ? "time per owner" : "", "source"}};
  auto texts = std::vector<std::string>{"nnm+trimmed_mean", "bucketing(2)+trimmed_mean", "arc+trimmed_mean"};
  for (auto const& rule : Rule::all())
    if (!rule.is_mixer) texts.push_back(rule.name);
  std::map<std::string, RuleDescription> descriptions;
  for (auto const& rule : Rule::all()) descriptions.emplace(rule.name, rule);
  for (auto const& text : texts) {
    auto const rule = Rule::parse(text);
    auto const& described = descriptions.at(text.substr(0, text.find_first_of("(+")));
    bool const fits = rule.check_bounds(job.members, job.byzantine).has_value();
    int const most = greatest_byzantine(rule, job.members);
    table.push_back({text, described.bound, most < 0 ? "-" : std::to_string(most), fits ? "yes" : "no",
                     std::string(cost_of(described.name)),
                     fits && timer ? milliseconds(timer->time(rule).median_s * times) : "", described.source});
  }
  print_columns(table);
  if (job.measures)
    std::printf("\nTimes: on one thread of this machine, for the shard of one of %d owners (%.4g of %.4g elements).\n",
                job.members, job.elements / job.members, job.elements);

  auto const advice = advise(job.members, job.byzantine, job.is_iid);
  if (advice.rule.empty()) {
    std::printf("\nNo recommendation: %s.\n", advice.reason.c_str());
    return;
  }
  std::printf("\nRecommended: --rule %s --byzantine %d%s\n  because %s.\n", advice.rule.c_str(), job.byzantine,
              job.byzantine > 0 ? " --worker-momentum 0.9" : "", advice.reason.c_str());
  if (!advice.alternative.empty()) std::printf("  Or %s: %s.\n", advice.alternative.c_str(), advice.why_not_it.c_str());
  if (job.byzantine > 0)
    std::printf(
        "  Worker momentum belongs to it: without, small lies of every step add up (drift costs up to 23 "
        "points).\n");
}

}  // namespace

int rules_command(int argc, char** argv) {
  cxxopts::Options description("holdfast rules");
  auto add = description.add_options();
  add("members", "", cxxopts::value<std::string>());
  add("byzantine", "", cxxopts::value<std::string>()->default_value("1"));
  add("elements", "", cxxopts::value<std::string>()->default_value("1000000"));
  add("non-iid", "");
  add("no-measure", "");
  add("h,help", "");
  std::optional<cxxopts::ParseResult> given;
  try {
    given = description.parse(argc, argv);
  } catch (cxxopts::exceptions::exception const& error) {
    throw UsageError(std::string(error.what()) + "; see holdfast rules --help");
  }
  if (!given->unmatched().empty())
    throw UsageError("unexpected '" + given->unmatched().front() + "'; usage: holdfast rules [options]");
  if (given->count("help") != 0) return std::fputs(kHelp, stdout), 0;
  if (given->count("members") == 0) {
    for (char const* const option : {"byzantine", "elements", "non-iid", "no-measure"})
      if (given->count(option) != 0)
        throw UsageError("--" + std::string(option) + " needs --members: of how many members?");
    list_rules();
    return 0;
  }
  Job job;
  job.members = static_cast<int>(parse_integer("--members", (*given)["members"].as<std::string>(), 1, 1024));
  job.byzantine = static_cast<int>(parse_integer("--byzantine", (*given)["byzantine"].as<std::string>(), 0, 1024));
  job.elements = parse_elements((*given)["elements"].as<std::string>());
  job.is_iid = given->count("non-iid") == 0;
  job.measures = given->count("no-measure") == 0;
  advise_on(job);
  return 0;
}

}  // namespace holdfast::launch
