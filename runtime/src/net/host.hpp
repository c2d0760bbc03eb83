#pragma once

#include <cstdint>
#include <optional>
#include <string>

/// What the kernel says about this host and its processes.
namespace holdfast::net {

[[nodiscard]] std::string host_name();

/// Boot id, host name and network namespace: equal exactly when two processes run on one host and can share memory.
[[nodiscard]] std::string locality();

/// Start time of a process in clock ticks since boot; nothing when there is no such process (or it is a zombie).
[[nodiscard]] std::optional<std::uint64_t> process_start(std::int64_t pid);

/// First IPv4 address of this host from the private ranges (RFC 1918, 6598) on an interface that is up.
[[nodiscard]] std::optional<std::string> private_address();

}  // namespace holdfast::net
