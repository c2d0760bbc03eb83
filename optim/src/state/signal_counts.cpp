#include "state/signal_counts.hpp"

#include <atomic>
#include <csignal>
#include <mutex>
#include <utility>

namespace holdfast::optim {
namespace {

// A signal is the process's, so is its count.
std::atomic<std::uint32_t> saves{0};
std::atomic<std::uint32_t> ends{0};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free, "handlers may touch nothing else");

std::mutex mutex;
int listeners = 0;
struct sigaction before_save, before_end, before_terminate;

extern "C" void count_save(int) {
  saves.fetch_add(1, std::memory_order_relaxed);
}
extern "C" void count_end(int) {
  ends.fetch_add(1, std::memory_order_relaxed);
}

void install(int signal, void (*handler)(int), struct sigaction& before) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, &before);
}

}  // namespace

SignalCounts::SignalCounts(bool is_on) : is_on_(is_on) {
  if (!is_on_) return;
  std::scoped_lock const lock(mutex);
  seen_save_ = saves.load();
  seen_end_ = ends.load();
  if (listeners++ > 0) return;
  install(SIGUSR1, count_save, before_save);
  install(SIGUSR2, count_end, before_end);
  install(SIGTERM, count_end, before_terminate);
}

SignalCounts::~SignalCounts() {
  if (!is_on_) return;
  std::scoped_lock const lock(mutex);
  if (--listeners > 0) return;
  sigaction(SIGUSR1, &before_save, nullptr);
  sigaction(SIGUSR2, &before_end, nullptr);
  sigaction(SIGTERM, &before_terminate, nullptr);
}

bool SignalCounts::take_save() {
  auto const count = saves.load();
  return is_on_ && std::exchange(seen_save_, count) != count;
}

bool SignalCounts::take_end() {
  auto const count = ends.load();
  return is_on_ && std::exchange(seen_end_, count) != count;
}

}  // namespace holdfast::optim
