#include "toml_file.hpp"

#include <filesystem>

#include <toml++/toml.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::config {
namespace {

std::string as_text(std::string const& path, std::string_view key, toml::node const& node) {
  if (auto const text = node.value<std::string>(); node.is_string()) return *text;
  if (auto const number = node.value<std::int64_t>(); node.is_integer()) return std::to_string(*number);
  throw Error(Errc::bad_config, "in " + path + ", line " + std::to_string(node.source().begin.line) + ": " +
                                    std::string(key) + " must be a string or a whole number; tables are not used");
}

}  // namespace

std::vector<std::pair<std::string, std::string>> read_toml(std::string const& path) {
  if (!std::filesystem::exists(path))
    throw Error(Errc::not_found,
                "HOLDFAST_CONFIG names " + path + ", which does not exist; unset it or correct the path");
  try {
    std::vector<std::pair<std::string, std::string>> values;
    for (auto const& [key, node] : toml::parse_file(path))
      values.emplace_back(std::string(key.str()), as_text(path, key.str(), node));
    return values;
  } catch (toml::parse_error const& error) {
    throw Error(Errc::bad_config, "in " + path + ", line " + std::to_string(error.source().begin.line) + ": " +
                                      std::string(error.description()));
  }
}

}  // namespace holdfast::config
