#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#include <holdfast/runtime/outcome.hpp>

#include "credentials.hpp"
#include "handshake.hpp"

namespace holdfast::net::security {

/// What all TLS connections of a member share. TLS 1.3 only; both sides show who they are: by a key that both know, or
/// by certificates of one authority.
class TlsContext {
 public:
  [[nodiscard]] static std::shared_ptr<TlsContext> with_shared_key(Key const& key);
  /// Files in PEM form.
  /// @throws Error bad_config naming the file
  [[nodiscard]] static std::shared_ptr<TlsContext> with_certificates(std::string const& certificate,
                                                                     std::string const& key,
                                                                     std::string const& authority);
  ~TlsContext();
  TlsContext(TlsContext const&) = delete;
  TlsContext& operator=(TlsContext const&) = delete;

 private:
  friend class TlsSession;
  struct Impl;
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// TLS on one nonblocking socket. OpenSSL works on the socket itself, so that bytes are deciphered to where they
/// belong.
///
/// The socket stays the caller's and must outlive the session's use.
class TlsSession {
 public:
  TlsSession(std::shared_ptr<TlsContext> context, Role role, int socket);
  ~TlsSession();
  TlsSession(TlsSession const&) = delete;
  TlsSession& operator=(TlsSession const&) = delete;

  enum class Wait { nothing, to_read, to_write };
  /// @return what to wait for before the next call; nothing: done. corrupt_message: the peer is none of us;
  /// member_lost:
  ///         the connection ended
  Outcome<Wait> advance();
  /// Names this very connection: equal at both ends, unlike that of any other, whoever sits between.
  [[nodiscard]] Hash binding() const;

  /// As on a nonblocking socket. What would_block refused to write must come again first.
  std::size_t read_some(std::span<std::byte> bytes, std::error_code& error);
  std::size_t write_some(std::span<std::byte const> bytes, std::error_code& error);
  /// Bytes are here that the socket no longer has.
  [[nodiscard]] bool has_pending() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::net::security
