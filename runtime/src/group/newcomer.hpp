#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/deadline.hpp>

namespace holdfast {

struct GroupState;

/// Finds the members of a running job as config.join says, and gets ready to become one of them.
/// @throws Error mismatch with the difference, start_failed saying what was tried
[[nodiscard]] std::shared_ptr<GroupState> join_running_job(Config config, Deadline deadline);

/// Says in the log, the event log and the directory, if there is one, where newcomers may call this member. Does
/// nothing where they may not.
void publish_where_newcomers_call(GroupState& state, std::optional<std::filesystem::path> const& directory);

}  // namespace holdfast
