#pragma once

#include <stdexcept>
#include <string>
#include <system_error>

#include <holdfast/runtime/errc.hpp>

namespace holdfast {

/// Thrown for misuse and for an environment that cannot work: bad arguments, bad configuration, a backend that was not
/// built, a missing file. Failures that are expected while training are returned as Outcome instead.
class Error : public std::system_error {
 public:
  Error(Errc code, std::string const& message) : std::system_error(make_error_code(code)), message_(message) {}
  /// The message alone: std::system_error would add the category's words to it.
  [[nodiscard]] char const* what() const noexcept override { return message_.what(); }
  [[nodiscard]] Errc errc() const noexcept { return static_cast<Errc>(code().value()); }

 private:
  std::runtime_error message_;  // a string whose copies do not throw
};

}  // namespace holdfast
