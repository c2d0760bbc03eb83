#include "guarded.hpp"

#include <exception>
#include <iostream>
#include <string>

#include <holdfast/runtime/error.hpp>

namespace examples {

int guarded(std::string_view program, std::function<int()> const& main) {
  try {
    return main();
  } catch (holdfast::Error const& error) {
    // The message alone says it; what() ends with the text of the error code.
    std::string message = error.what();
    if (auto const tail = ": " + error.code().message(); message.ends_with(tail))
      message.resize(message.size() - tail.size());
    std::cerr << program << ": " << message << std::endl;
    switch (error.errc()) {
      case holdfast::Errc::bad_argument:
      case holdfast::Errc::bad_config:
      case holdfast::Errc::not_found:
      case holdfast::Errc::f_out_of_bounds:
        return 2;
      default:
        return 1;
    }
  } catch (std::exception const& error) {
    std::cerr << program << ": " << error.what() << std::endl;
    return 1;
  }
}

}  // namespace examples
