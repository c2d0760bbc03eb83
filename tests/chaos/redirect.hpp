#pragma once

#include <cstdint>

#include "board.hpp"

namespace holdfast::chaos {

/// From now on this process's connections to ports that members listen on go through the relay, and its own listening
/// ports are told to the board. Nothing in the library knows of it.
void redirect_connections(Board& board, std::size_t seat, std::uint16_t relay_port);

/// The address under which the relay is called: it says who calls whom.
struct RelayAddress {
  std::uint32_t address = 0;  ///< IPv4, host order; in 127.0.0.0/8
  [[nodiscard]] static RelayAddress of(std::size_t caller, std::uint16_t port) {
    return {(127U << 24U) | (static_cast<std::uint32_t>(caller + 100) << 16U) | port};
  }
  [[nodiscard]] bool is_valid() const { return address >> 24U == 127 && ((address >> 16U) & 0xFFU) >= 100; }
  [[nodiscard]] std::size_t caller() const { return ((address >> 16U) & 0xFFU) - 100; }
  [[nodiscard]] std::uint16_t port() const { return static_cast<std::uint16_t>(address & 0xFFFFU); }
};

}  // namespace holdfast::chaos
