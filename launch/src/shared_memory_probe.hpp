#pragma once

#include <string>

namespace holdfast::launch {

/// Does in small what the shm fabric does: another process opens this one's memfd through /proc, maps it, writes a word
/// and wakes this one by a futex.
/// @return empty if it worked, else which step failed and why
[[nodiscard]] std::string probe_shared_memory();

}  // namespace holdfast::launch
