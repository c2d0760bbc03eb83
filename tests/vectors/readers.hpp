#pragma once

#include <vector>

#include "json_node.hpp"
#include "schemas.hpp"

/// One reader per schema, in the file that also checks its cases.
namespace holdfast::vectors {

[[nodiscard]] std::vector<Case> read_codec_cases(Node const& root);
[[nodiscard]] std::vector<Case> read_schedule_cases(Node const& root);
[[nodiscard]] std::vector<Case> read_outer_step_cases(Node const& root);
[[nodiscard]] std::vector<Case> read_planner_cases(Node const& root);

}  // namespace holdfast::vectors
