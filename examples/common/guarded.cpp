#include "guarded.hpp"

#include <exception>
#include <iostream>

#include <holdfast/runtime/error.hpp>

namespace examples {

int guarded(std::string_view program, std::function<int()> const& main) {
  try {
    return main();
  } catch (holdfast::Error const& error) {
    std::cerr << program << ": " << error.what() << std::endl;
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
