#include "host_address.hpp"

#include <cerrno>
#include <cstring>
#include <memory>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>

#include <holdfast/runtime/error.hpp>

#include "descriptor.hpp"

namespace holdfast::launch {
namespace {

bool is_private(std::uint32_t address) {
  auto const in = [address](std::uint32_t network, int bits) {
    return address >> (32 - bits) == network >> (32 - bits);
  };
  return in(0x0A000000, 8) || in(0xAC100000, 12) || in(0xC0A80000, 16) || in(0x64400000, 10);
}

}  // namespace

std::string host_address() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return "127.0.0.1";
  std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> const owner(list, ::freeifaddrs);
  for (auto const* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    auto const& address = reinterpret_cast<sockaddr_in const*>(entry->ifa_addr)->sin_addr;
    char text[INET_ADDRSTRLEN] = {};
    if (is_private(ntohl(address.s_addr)) && ::inet_ntop(AF_INET, &address, text, sizeof text) != nullptr) return text;
  }
  return "127.0.0.1";
}

std::uint16_t free_port(std::string const& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  int const refused = ::getaddrinfo(address.c_str(), "0", &hints, &found);
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> const owner(found, ::freeaddrinfo);
  if (refused == 0) {
    Descriptor const socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage bound{};
    socklen_t bytes = sizeof bound;
    if (socket.is_open() && ::bind(socket.get(), found->ai_addr, found->ai_addrlen) == 0 &&
        ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) == 0)
      return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6 const*>(&bound)->sin6_port
                                               : reinterpret_cast<sockaddr_in const*>(&bound)->sin_port);
  }
  throw Error(Errc::environment, "cannot listen at " + address + ": " +
                                     (refused != 0 ? ::gai_strerror(refused) : std::strerror(errno)) +
                                     "; HOLDFAST_BIND_ADDRESS must be a numeric address of this host");
}

}  // namespace holdfast::launch
