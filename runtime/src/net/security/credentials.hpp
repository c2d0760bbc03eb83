#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/runtime/config.hpp>

namespace holdfast::net::security {

class TlsContext;

using Key = std::array<std::byte, 32>;
using Hash = std::array<std::byte, 32>;

/// How a member proves itself on its connections and whom it believes. Default: nothing is asked and nothing hidden.
struct Credentials {
  Hash job{};                             ///< of the job id: what is said in one job proves nothing in another
  std::optional<Key> authentication_key;  ///< both sides of every connection must know it
  std::shared_ptr<TlsContext> tls;        ///< what enciphers connections; null: plain
};

/// @throws Error bad_config or environment when a named file cannot be used
[[nodiscard]] Credentials credentials_of(Config const& config);

/// The configuration with the secret itself in place of the file that holds it.
/// @throws Error bad_config naming the file
[[nodiscard]] Config with_secret_read(Config config);

/// "none", "secret", "secret+tls", "certificates" or "secret+certificates": what members must agree on before they can
/// speak to each other.
[[nodiscard]] std::string kind_of_security(Config const& config);

/// A key for one use from the job secret (HKDF with SHA-256, RFC 5869).
[[nodiscard]] Key derive_key(std::string_view secret, std::string_view use);
[[nodiscard]] Hash sha256(std::string_view text);

}  // namespace holdfast::net::security
