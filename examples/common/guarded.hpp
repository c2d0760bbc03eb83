#pragma once

#include <functional>
#include <string_view>

namespace examples {

/// Runs a program's main function. An exception becomes one line on standard error and an exit status: 2 for a wrong
/// flag, rule, attack or file, 1 for everything else. No backtrace.
int guarded(std::string_view program, std::function<int()> const& main);

}  // namespace examples
