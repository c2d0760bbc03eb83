#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/outcome.hpp>

#include "../net/secure_stream.hpp"
#include "state_frame.hpp"

namespace holdfast::state {

/// The connection between a donor and a newcomer: authenticated, and enciphered where the job is.
///
/// Threads: one drives it (open, push, turn); wake() from any.
class StateLink {
 public:
  using IsWanted = std::function<bool()>;
  using Handler = std::function<Outcome<void>(Frame const&, std::span<std::byte const> body)>;

  /// Takes over a connected socket. @throws Error environment
  StateLink(int descriptor, asio::ip::tcp protocol, net::security::Credentials const& credentials,
            net::security::Role role);
  ~StateLink();
  StateLink(StateLink const&) = delete;
  StateLink& operator=(StateLink const&) = delete;

  /// @throws Error environment
  [[nodiscard]] static Outcome<std::unique_ptr<StateLink>> connect(std::string const& host, std::uint16_t port,
                                                                   net::security::Credentials const& credentials,
                                                                   Deadline deadline, IsWanted const& is_wanted);

  /// Each side proves itself.
  [[nodiscard]] Outcome<void> open(Deadline deadline, IsWanted const& is_wanted);

  /// Sends a frame later on. `owner` keeps the body.
  void push(Frame frame, std::span<std::byte const> body = {}, std::shared_ptr<void const> owner = {});
  [[nodiscard]] std::size_t unsent_bytes() const { return unsent_bytes_; }

  /// Moves what can be moved, and waits for at most so long when nothing can.
  /// @return corrupt_message, member_lost, or what the handler said
  [[nodiscard]] Outcome<void> turn(std::chrono::nanoseconds at_most, Handler const& on_frame);
  void wake();

 private:
  struct Outgoing {
    std::array<std::byte, kFrameHeaderBytes> header;
    std::span<std::byte const> body;
    std::shared_ptr<void const> owner;
    std::size_t sent = 0;
  };
  Outcome<bool> write();
  Outcome<bool> read(Handler const& on_frame);

  asio::io_context io_;
  std::unique_ptr<net::SecureStream> stream_;
  int wake_ = -1;
  std::deque<Outgoing> outgoing_;
  std::size_t unsent_bytes_ = 0;
  std::array<std::byte, kFrameHeaderBytes> header_{};
  std::vector<std::byte> body_;
  std::size_t received_ = 0;  ///< of header and body
  Frame frame_;               ///< once the header is there
};

}  // namespace holdfast::state
