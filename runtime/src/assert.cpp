#include <cstdlib>
#include <string>

#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast::detail {

void assertion_failed(char const* condition, char const* why, char const* file, int line) noexcept {
  try {
    log_error(std::string("broken invariant: ") + why + " (" + condition + ") at " + file + ":" + std::to_string(line) +
              "; this is a bug in holdfast, please report it with the event log");
  } catch (...) {
    // Composing the message failed; the signal below must still happen.
  }
  std::abort();
}

}  // namespace holdfast::detail
