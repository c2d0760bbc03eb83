#pragma once

#include <csignal>
#include <optional>

#include "descriptor.hpp"

namespace holdfast::launch {

/// Blocks the signals that a supervisor forwards and lets them be read from a descriptor, for as long as it lives.
class SignalQueue {
 public:
  /// @throws Error environment
  SignalQueue();
  SignalQueue(SignalQueue const&) = delete;
  SignalQueue& operator=(SignalQueue const&) = delete;
  ~SignalQueue();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] sigset_t const& mask_before() const { return before_; }
  [[nodiscard]] std::optional<int> next() const;

 private:
  sigset_t before_{};
  Descriptor fd_;
  void (*pipe_before_)(int) = SIG_DFL;
};

}  // namespace holdfast::launch
