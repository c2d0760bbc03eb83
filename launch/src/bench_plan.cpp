#include "bench_plan.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string_view>

#include <holdfast/runtime/error.hpp>

#include "usage.hpp"

namespace holdfast::launch {

int iterations_for(BenchPlan const& plan, std::uint64_t bytes) {
  if (plan.iterations > 0) return plan.iterations;
  constexpr std::uint64_t kBytesPerRepeat = std::uint64_t{512} << 20;
  return static_cast<int>(std::clamp<std::uint64_t>(kBytesPerRepeat / bytes, 6, 200));
}

std::string measurement_line(Measurement const& measurement) {
  std::string line = std::to_string(measurement.bytes) + " " + std::to_string(measurement.wrong);
  for (double const seconds : measurement.seconds) {
    char text[32];
    std::snprintf(text, sizeof text, " %.9f", seconds);
    line += text;
  }
  return line + "\n";
}

std::vector<Measurement> read_measurements(std::filesystem::path const& file) {
  std::vector<Measurement> measurements;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Measurement measurement;
    words >> measurement.bytes >> measurement.wrong;
    for (double seconds = 0; words >> seconds;) measurement.seconds.push_back(seconds);
    if (measurement.seconds.empty()) throw Error(Errc::environment, "the ranks left a damaged result: " + line);
    measurements.push_back(std::move(measurement));
  }
  if (measurements.empty()) throw Error(Errc::environment, "the ranks left no result; their last lines say why");
  return measurements;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::size_t const middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string encode(BenchPlan const& plan) {
  std::ostringstream text;
  text << plan.is_aggregate << ' ' << plan.fabric << ' ' << plan.ranks << ' ' << plan.rule << ' ' << plan.byzantine
       << ' ' << plan.uses_arena << ' ' << plan.commits << ' ' << static_cast<int>(plan.dtype) << ' '
       << plan.iterations;
  for (auto const bytes : plan.sizes) text << ' ' << bytes;
  return text.str();
}

BenchPlan decode_plan(std::string const& text) {
  std::istringstream words(text);
  BenchPlan plan;
  int dtype = 0;
  words >> plan.is_aggregate >> plan.fabric >> plan.ranks >> plan.rule >> plan.byzantine >> plan.uses_arena >>
      plan.commits >> dtype >> plan.iterations;
  plan.dtype = static_cast<DType>(dtype);
  if (!words || element_bytes(plan.dtype) == 0)
    throw UsageError("not a plan; this command is started by holdfast bench");
  for (std::uint64_t bytes = 0; words >> bytes;) plan.sizes.push_back(bytes);
  return plan;
}

DType parse_dtype(std::string_view option, std::string_view text) {
  constexpr DType kTypes[] = {DType::float32,  DType::float64, DType::float16,
                              DType::bfloat16, DType::int32,   DType::int64};
  std::vector<std::string_view> names;
  for (auto const dtype : kTypes) names.push_back(name(dtype));
  auto const found = require_one_of(option, text, names);
  return *std::find_if(std::begin(kTypes), std::end(kTypes), [&](DType dtype) { return name(dtype) == found; });
}

}  // namespace holdfast::launch
