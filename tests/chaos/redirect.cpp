#include "redirect.hpp"

#include <atomic>
#include <cstring>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace holdfast::chaos {
namespace {

std::atomic<Board*> the_board{nullptr};
std::atomic<std::size_t> the_seat{0};
std::atomic<std::uint16_t> the_relay{0};

template <typename Function>
Function next_of(char const* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

void redirect_connections(Board& board, std::size_t seat, std::uint16_t relay_port) {
  the_seat.store(seat);
  the_relay.store(relay_port);
  the_board.store(&board);
}

}  // namespace holdfast::chaos

// These stand before the C library's, so they see every connection of the program, whichever library makes it.

extern "C" int connect(int descriptor, sockaddr const* address, socklen_t bytes) {
  using namespace holdfast::chaos;
  static auto const real = next_of<decltype(&::connect)>("connect");
  auto* const board = the_board.load();
  if (board == nullptr || address == nullptr || address->sa_family != AF_INET || bytes < sizeof(sockaddr_in))
    return real(descriptor, address, bytes);
  sockaddr_in to;
  std::memcpy(&to, address, sizeof to);
  if (board->port_owner[ntohs(to.sin_port)].load() == 0) return real(descriptor, address, bytes);
  to.sin_addr.s_addr = htonl(RelayAddress::of(the_seat.load(), ntohs(to.sin_port)).address);
  to.sin_port = htons(the_relay.load());
  return real(descriptor, reinterpret_cast<sockaddr const*>(&to), sizeof to);
}

extern "C" int listen(int descriptor, int backlog) {
  using namespace holdfast::chaos;
  static auto const real = next_of<decltype(&::listen)>("listen");
  int const result = real(descriptor, backlog);
  sockaddr_in own{};
  socklen_t bytes = sizeof own;
  if (auto* const board = the_board.load(); board != nullptr && result == 0 &&
                                            ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &bytes) == 0 &&
                                            own.sin_family == AF_INET)
    board->port_owner[ntohs(own.sin_port)].store(static_cast<std::uint8_t>(the_seat.load() + 1));
  return result;
}
