#pragma once

#include <chrono>
#include <cstdint>

#include "fabrics/memory/control.hpp"

namespace holdfast::fabrics {

/// Tells the doorbell's owner, in this or another process, that something has changed. A system call only if it sleeps.
void ring(Doorbell& doorbell);

/// Reads the count to hand to sleep(): what is rung after this ends that sleep.
[[nodiscard]] std::uint32_t announce_sleep(Doorbell& doorbell);
/// Sleeps unless the doorbell was rung since announce_sleep().
void sleep(Doorbell& doorbell, std::uint32_t rings_seen, std::chrono::nanoseconds at_most);
void cancel_sleep(Doorbell& doorbell);

}  // namespace holdfast::fabrics
