#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <asio/ip/tcp.hpp>

#include "../protocol/message.hpp"
#include "secure_stream.hpp"
#include "wire.hpp"

namespace holdfast::net {

/// One TCP connection that carries messages in order. Lives on the thread that runs its io_context.
///
/// After on_closed (or close()) no handler is called again. Handlers may close the connection they are called for.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Handlers {
    std::function<void(protocol::Message)> on_message;
    /// `is_violation`: the peer sent something that is no message; else the connection ended as `reason` says.
    std::function<void(bool is_violation, std::string reason)> on_closed;
    /// Bytes came, perhaps of a message that is not complete yet. May be empty.
    std::function<void()> on_bytes{};
  };

  Connection(asio::ip::tcp::socket socket, security::Credentials const& credentials, security::Role role,
             security::Purpose purpose);

  /// The peer proves itself first; what is sent before that waits until it has.
  void start(Handlers handlers);
  /// Replaces the handlers: a connection changes hands once its peer is known.
  void hand_over(Handlers handlers) { handlers_ = std::move(handlers); }
  void send(protocol::Message const& message);
  /// Closes our direction once everything sent before is out; the peer's direction stays open.
  void finish();
  void close();
  /// Adds what is written from now on to `counter`.
  void count_into(std::shared_ptr<std::atomic<std::uint64_t>> counter) { counter_ = std::move(counter); }
  [[nodiscard]] bool is_open() const { return stream_.is_connected(); }

 private:
  void read();
  void take_in();
  /// False when the connection was closed meanwhile.
  bool deliver();
  void write();
  void fail(bool is_violation, std::string const& reason);

  SecureStream stream_;
  Handlers handlers_;
  FrameReader reader_;
  std::array<std::byte, 65'536> input_;
  std::deque<Bytes> output_;
  std::shared_ptr<std::atomic<std::uint64_t>> counter_;
  std::size_t written_ = 0;  ///< bytes of output_.front() that are out
  bool is_proven_ = false;   ///< the peer is one of us
  bool is_waiting_ = false;  ///< for the socket to take more
  bool is_finishing_ = false;
};

}  // namespace holdfast::net
