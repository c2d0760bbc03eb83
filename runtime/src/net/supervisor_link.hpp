#pragma once

#include <array>
#include <functional>
#include <string>

#include <asio/io_context.hpp>
#include <asio/local/stream_protocol.hpp>

#include "../protocol/message.hpp"
#include "wire.hpp"

namespace holdfast::net {

/// A member's connection to the supervisor on its host. Lives on the thread that runs its io_context.
class SupervisorLink {
 public:
  /// Connects and says who this is.
  /// @param join            where newcomers may call it; empty: nowhere
  /// @param on_certificate  called with each member that the supervisor saw end
  /// @throws Error bad_config for an address that is not unix:///path, start_failed when nobody answers there
  SupervisorLink(asio::io_context& io, std::string const& address, std::string const& job_id, MemberId self,
                 std::string const& join, std::function<void(MemberId)> on_certificate);
  /// Asks for the end of a process. Whoever needs it repeats it.
  void request(protocol::FenceRequest const& request);

 private:
  void read();
  void lose(std::string const& reason);
  void send(protocol::Message const& message);

  asio::local::stream_protocol::socket socket_;
  std::function<void(MemberId)> on_certificate_;
  FrameReader reader_;
  std::array<std::byte, 4'096> input_;
};

}  // namespace holdfast::net
