#pragma once

#include <string>
#include <vector>

#include <holdfast/runtime/config.hpp>

namespace holdfast::config {

/// One row of the table from which everything about a setting is generated.
struct Key {
  std::string name;  ///< "op_timeout_ms"
  std::string type;  ///< "integer", "milliseconds", "bytes", "text", or the choices joined by |
  std::string doc;   ///< one line
  void (*set)(Config&, Key const&, std::string const& value);  ///< throws Error bad_config
  std::string (*get)(Config const&);
  long long minimum = 0;  ///< bounds of numbers
  long long maximum = 0;

  [[nodiscard]] std::string variable() const;  ///< "HOLDFAST_OP_TIMEOUT_MS"
};

[[nodiscard]] std::vector<Key> const& keys();

/// @throws Error bad_config that lists the valid keys, nearest first
[[nodiscard]] Key const& find(std::string const& name);

}  // namespace holdfast::config
