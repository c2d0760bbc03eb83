#pragma once

namespace holdfast::detail {

/// Logs the broken invariant and ends the process by SIGABRT: a signal, because transports notice those, while
/// _exit(1) over shared memory goes unseen.
[[noreturn]] void assertion_failed(char const* condition, char const* why, char const* file, int line) noexcept;

}  // namespace holdfast::detail

/// Checks an invariant of our own code. Never for input: bad arguments throw Error, bad bytes become a Failure.
#define HOLDFAST_ASSERT(condition, why) \
  ((condition) ? void(0) : ::holdfast::detail::assertion_failed(#condition, why, __FILE__, __LINE__))
