#include "supervisor_link.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include <asio/buffer.hpp>
#include <asio/write.hpp>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast::net {
namespace {

constexpr std::string_view kScheme = "unix://";
// For a supervisor that is stopped, say by Ctrl-Z.
constexpr timeval kConnectLimit{10, 0};

int connect_to(std::string const& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  auto const path = address.rfind(kScheme, 0) == 0 ? address.substr(kScheme.size()) : "";
  if (path.empty() || path.front() != '/' || path.size() >= sizeof name.sun_path)
    throw Error(Errc::bad_config,
                "supervisor = \"" + address + "\" is not unix:///path (HOLDFAST_SUPERVISOR); `holdfast run` sets it");
  std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
  int const descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &kConnectLimit, sizeof kConnectLimit);
  if (descriptor >= 0 && ::connect(descriptor, reinterpret_cast<sockaddr const*>(&name), sizeof name) == 0)
    return descriptor;
  auto const* const reason = std::strerror(errno);
  if (descriptor >= 0) ::close(descriptor);
  throw Error(Errc::start_failed, "the supervisor does not answer at " + address + " (" + reason +
                                      "); start the program by `holdfast run`, or unset HOLDFAST_SUPERVISOR");
}

}  // namespace

SupervisorLink::SupervisorLink(asio::io_context& io, std::string const& address, std::string const& job_id,
                               MemberId self, std::string const& join, std::function<void(MemberId)> on_certificate)
    : socket_(io, asio::local::stream_protocol(), connect_to(address)), on_certificate_(std::move(on_certificate)) {
  socket_.non_blocking(true);
  constexpr std::int32_t kNoRank = 0;
  send(protocol::Hello{protocol::kProtocolVersion, job_id, 0, static_cast<std::int32_t>(self), kNoRank});
  if (!join.empty()) send(protocol::Reachable{join});
  read();
}

void SupervisorLink::request(protocol::FenceRequest const& request) {
  send(request);
}

void SupervisorLink::send(protocol::Message const& message) {
  if (!socket_.is_open()) return;
  auto const bytes = encode(message);
  // Small and rare beside the buffer of a socket: one that does not take it whole belongs to somebody who is stuck.
  auto const count = ::send(socket_.native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (count == static_cast<ssize_t>(bytes.size())) return;
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  lose("it does not take what it is sent");
}

void SupervisorLink::read() {
  socket_.async_read_some(asio::buffer(input_), [this](std::error_code error, std::size_t bytes) {
    if (error == asio::error::operation_aborted) return;
    if (error) return lose("the connection was closed");
    reader_.append(std::span(input_).first(bytes));
    while (true) {
      auto message = reader_.next();
      if (!message) return lose("it sent " + message.error().detail);
      if (!*message) break;
      if (auto const* const certificate = std::get_if<protocol::Certificate>(&**message))
        on_certificate_(certificate->member);
    }
    read();
  });
}

void SupervisorLink::lose(std::string const& reason) {
  if (!socket_.is_open()) return;
  log_warning("the supervisor is lost: " + reason + "; nobody ends members that hang any more");
  std::error_code ignored;
  socket_.close(ignored);
}

}  // namespace holdfast::net
