#pragma once

#include <string>
#include <utility>
#include <vector>

namespace holdfast::config {

/// The keys and values of a flat TOML file, values as text.
/// @throws Error bad_config naming file, line and remedy; not_found when there is no such file
[[nodiscard]] std::vector<std::pair<std::string, std::string>> read_toml(std::string const& path);

}  // namespace holdfast::config
