#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "record.hpp"

/// Records of members as files in a directory that members share.
namespace holdfast::net {

/// How the names of a job's files begin. Job ids may hold anything; file names may not. A hash keeps the records of two
/// jobs in two files.
[[nodiscard]] std::string record_file_prefix(std::string const& job_id);

/// Empty when the file is not there, or too long for what it should be.
[[nodiscard]] std::string read_text_file(std::filesystem::path const& path);
[[nodiscard]] std::optional<Record> read_record_file(std::filesystem::path const& path);
/// Whole or not at all.
/// @throws Error environment
void write_whole_file(std::filesystem::path const& path, std::string const& content, std::uint64_t token);

/// Left behind by a process of this host that no longer runs.
[[nodiscard]] bool is_stale(Record const& record, std::string const& own_locality);

}  // namespace holdfast::net
