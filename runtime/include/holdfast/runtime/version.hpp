#pragma once

namespace holdfast {

/// "0.1.0". All members of a group must run the same one.
[[nodiscard]] char const* version() noexcept;

}  // namespace holdfast
