#include "schemas.hpp"

#include "json_node.hpp"
#include "readers.hpp"

namespace holdfast::vectors {

std::optional<std::vector<Case>> read_cases(std::filesystem::path const& path) {
  auto const json = read_json(path);
  Node const root{json, path.string()};
  auto const schema = read_schema(root);
  if (schema == "holdfast-codec-1") return read_codec_cases(root);
  if (schema == "holdfast-schedule-1") return read_schedule_cases(root);
  if (schema == "holdfast-outer-step-1") return read_outer_step_cases(root);
  if (schema == "holdfast-planner-1") return read_planner_cases(root);
  return std::nullopt;
}

}  // namespace holdfast::vectors
