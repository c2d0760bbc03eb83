#pragma once

#include <string>
#include <string_view>

#include <holdfast/runtime/checkpoint.hpp>

namespace holdfast::checkpoint {

constexpr std::size_t kMostManifestBytes = std::size_t{16} << 20;

/// JSON with a checksum over what it says.
[[nodiscard]] std::string encode_manifest(CheckpointManifest const& manifest);
/// @return corrupt_message for anything that encode_manifest() did not write, or that has changed since
[[nodiscard]] Outcome<CheckpointManifest> decode_manifest(std::string_view text);

/// A name within the folder of its checkpoint: no path leads out of it.
[[nodiscard]] bool is_file_name(std::string_view name);

}  // namespace holdfast::checkpoint
