#pragma once

#include <cstdint>
#include <string>

namespace holdfast::launch {

/// Where members on other hosts reach this one: an IPv4 address from the private ranges on an interface that is up;
/// loopback when there is none.
[[nodiscard]] std::string host_address();

/// A TCP port of that address that is free now.
/// @throws Error environment
[[nodiscard]] std::uint16_t free_port(std::string const& address);

}  // namespace holdfast::launch
