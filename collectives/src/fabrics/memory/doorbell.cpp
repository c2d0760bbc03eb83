#include "fabrics/memory/doorbell.hpp"

#include <climits>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace holdfast::fabrics {

namespace {
// Not the private form: the word is shared between processes.
long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value, timespec const* timeout) {
  return ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, timeout, nullptr, 0);
}
}  // namespace

void ring(Doorbell& doorbell) {
  doorbell.rings.fetch_add(1, std::memory_order_seq_cst);
  if (doorbell.is_sleeping.load(std::memory_order_seq_cst) != 0) futex(doorbell.rings, FUTEX_WAKE, INT_MAX, nullptr);
}

std::uint32_t announce_sleep(Doorbell& doorbell) {
  doorbell.is_sleeping.store(1, std::memory_order_seq_cst);
  return doorbell.rings.load(std::memory_order_seq_cst);
}

void sleep(Doorbell& doorbell, std::uint32_t rings_seen, std::chrono::nanoseconds at_most) {
  auto const nanoseconds = at_most.count();
  timespec const timeout{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  if (nanoseconds > 0) futex(doorbell.rings, FUTEX_WAIT, rings_seen, &timeout);
  cancel_sleep(doorbell);
}

void cancel_sleep(Doorbell& doorbell) {
  doorbell.is_sleeping.store(0, std::memory_order_relaxed);
}

}  // namespace holdfast::fabrics
