// Runs the cases of test vector files: aggregation in one piece and over several owners, codecs, schedules, outer steps
// and the planner.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checks.hpp"
#include "schemas.hpp"
#include "vector_file.hpp"

namespace {

using holdfast::vectors::Result;
using holdfast::vectors::Verdict;

constexpr char const* kUsage =
    "usage: holdfast_vectors FILE...\n"
    "\n"
    "Runs every case of the files. Schema holdfast-aggregation-1: in fp64 and, where a case allows it, in fp32, in\n"
    "one piece and over 2, 3, 4 and 7 owners. Schemas holdfast-codec-1, holdfast-schedule-1, holdfast-outer-step-1:\n"
    "bit for bit. Schema holdfast-planner-1: within the file's tolerances.\n"
    "Cases for which this build has no code are skipped and counted.\n"
    "Prints the failures, the worst error, and as last line `N passed, N failed[, N skipped]`.\n"
    "Exit status: 0 all passed, 1 some failed, 2 a file cannot be used.\n";

struct Worst {
  double error = 0;
  std::string id = "none";
  void add(double other, std::string const& other_id) {
    if (other <= error) return;
    error = other;
    id = other_id;
  }
};

struct Tally {
  int passed = 0;
  int failed = 0;
  int skipped = 0;
  Worst worst64;
  Worst worst32;
  std::map<std::string, int> reasons;  ///< of skipping

  void add(std::string const& id, Result const& result) {
    switch (result.verdict) {
      case Verdict::passed:
        ++passed;
        break;
      case Verdict::failed:
        ++failed;
        std::printf("FAILED %s: %s\n", id.c_str(), result.explanation.c_str());
        break;
      case Verdict::skipped:
        skip(result.explanation, 1);
        break;
    }
    worst64.add(result.error64, id);
    worst32.add(result.error32, id);
  }
  void skip(std::string const& reason, int cases) {
    if (cases == 0) return;
    skipped += cases;
    reasons[reason] += cases;
  }
};

void run_file(std::string const& path, Tally& tally) {
  if (auto const cases = holdfast::vectors::read_cases(path)) {
    for (auto const& given : *cases) tally.add(given.id, given.run());
    return;
  }
  auto const file = holdfast::vectors::read_vector_file(path);
  for (auto const& given : file.aggregators) tally.add(given.id, holdfast::vectors::check_aggregator(given));
  for (auto const& given : file.attacks) tally.add(given.id, holdfast::vectors::check_attack(given));
  for (auto const& given : file.misc) tally.add(given.id, holdfast::vectors::check_misc(given));
  if (file.schema != "holdfast-aggregation-1") tally.skip("schema " + file.schema, std::max(file.other_cases, 1));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> const arguments(argv + 1, argv + argc);
  if (std::any_of(arguments.begin(), arguments.end(),
                  [](std::string_view argument) { return argument == "-h" || argument == "--help"; })) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (arguments.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  Tally tally;
  for (auto const& path : arguments) {
    try {
      run_file(path, tally);
    } catch (std::exception const& error) {
      std::string const message = error.what();
      bool const names_file = message.rfind(path, 0) == 0;
      std::fprintf(stderr, "%s%s%s\n", names_file ? "" : path.c_str(), names_file ? "" : ": ", message.c_str());
      return 2;
    }
  }
  for (auto const& [reason, cases] : tally.reasons) std::printf("skipped %d: %s\n", cases, reason.c_str());
  std::printf("worst error: fp64 %.3g (%s), fp32 %.3g (%s)\n", tally.worst64.error, tally.worst64.id.c_str(),
              tally.worst32.error, tally.worst32.id.c_str());
  std::printf("%d passed, %d failed", tally.passed, tally.failed);
  if (tally.skipped != 0) std::printf(", %d skipped", tally.skipped);
  std::printf("\n");
  return tally.failed == 0 ? 0 : 1;
}
