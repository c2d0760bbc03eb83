#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::launch {

enum class Verdict {
  fact,     ///< good to know
  good,     ///< tried, and it works
  warning,  ///< works, but slower or with less than it could
  problem,  ///< holdfast cannot be used until the remedy is applied
};

[[nodiscard]] constexpr std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::fact:
      return "fact";
    case Verdict::good:
      return "good";
    case Verdict::warning:
      return "warning";
    case Verdict::problem:
      return "problem";
  }
  return "";
}

struct Check {
  std::string section;  ///< "fabrics"
  std::string name;     ///< "shm"
  Verdict verdict = Verdict::fact;
  std::string value;   ///< what was found
  std::string remedy;  ///< what to do about a warning or problem
};

/// How this build was made.
[[nodiscard]] std::vector<Check> check_build();
/// Which fabrics work here; tries each that can be tried by one process in a moment.
[[nodiscard]] std::vector<Check> check_fabrics();
/// Cores, memory, limits and kernel features that holdfast leans on.
[[nodiscard]] std::vector<Check> check_machine();
/// Settings that are not the defaults, where they come from, and HOLDFAST_* variables that nothing reads.
[[nodiscard]] std::vector<Check> check_settings();

}  // namespace holdfast::launch
