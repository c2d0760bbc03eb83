#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checks.hpp"

namespace holdfast::vectors {

/// A case that has been read from its file whole and is ready to run.
struct Case {
  std::string id;
  std::function<Result()> run;
};

/// The cases of a file whose schema is codec, schedule, planner or outer step; none for another schema.
/// @throws Malformed
[[nodiscard]] std::optional<std::vector<Case>> read_cases(std::filesystem::path const& path);

[[nodiscard]] inline Result failed(std::string why) {
  Result result;
  result.verdict = Verdict::failed;
  result.explanation = std::move(why);
  return result;
}

}  // namespace holdfast::vectors
