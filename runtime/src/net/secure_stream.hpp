#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>

#include <holdfast/runtime/outcome.hpp>

#include "security/credentials.hpp"
#include "security/handshake.hpp"
#include "security/tls.hpp"

namespace holdfast::net {

/// A connected socket on which each side first proves itself to the other, as the credentials demand. Never blocks.
///
/// Lives on the thread that runs its io_context.
class SecureStream {
 public:
  SecureStream(asio::ip::tcp::socket socket, security::Credentials const& credentials, security::Role role,
               security::Purpose purpose);

  /// Calls `done` once, possibly before it returns, not after close(): corrupt_message if the peer is none of us,
  /// member_lost if the connection ended first. `owner` keeps this object alive meanwhile.
  using Done = std::function<void(Outcome<void> const&)>;
  void open(std::shared_ptr<void> owner, Done done);

  /// As the functions of a nonblocking asio socket, once open. Where bytes are enciphered, fewer than asked for does
  /// not mean that the socket would block.
  std::size_t read_some(std::span<asio::mutable_buffer const> buffers, std::error_code& error);
  std::size_t write_some(std::span<asio::const_buffer const> buffers, std::error_code& error);
  std::size_t read_some(std::span<std::byte> bytes, std::error_code& error);
  std::size_t write_some(std::span<std::byte const> bytes, std::error_code& error);
  [[nodiscard]] bool is_enciphered() const { return tls_ != nullptr; }
  /// Bytes are here that waiting for the socket would not tell of.
  [[nodiscard]] bool has_pending() const { return tls_ != nullptr && tls_->has_pending(); }

  [[nodiscard]] asio::ip::tcp::socket& socket() { return socket_; }
  [[nodiscard]] bool is_connected() const { return socket_.is_open(); }
  void close();

 private:
  void advance(std::shared_ptr<void> const& owner, Done const& done);
  void await(asio::ip::tcp::socket::wait_type event, std::shared_ptr<void> const& owner, Done const& done);
  void begin_handshake(security::Hash const& binding);

  asio::ip::tcp::socket socket_;
  security::Credentials credentials_;
  security::Role role_;
  security::Purpose purpose_;
  std::unique_ptr<security::TlsSession> tls_;
  bool is_tls_open_ = false;
  std::optional<security::Handshake> handshake_;
  std::vector<std::byte> output_;  ///< of the handshake
};

}  // namespace holdfast::net
