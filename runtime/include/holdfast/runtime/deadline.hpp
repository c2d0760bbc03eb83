#pragma once

#include <chrono>

namespace holdfast {

/// An instant by which a call returns, whatever peers do. Passed down unchanged; never stored beyond the call.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  explicit constexpr Deadline(Clock::time_point instant) : instant_(instant) {}
  [[nodiscard]] static Deadline after(Clock::duration duration) { return Deadline(Clock::now() + duration); }
  [[nodiscard]] static Deadline now() { return Deadline(Clock::now()); }

  [[nodiscard]] constexpr Clock::time_point instant() const { return instant_; }
  [[nodiscard]] bool has_passed() const { return Clock::now() >= instant_; }
  /// Time left, never negative.
  [[nodiscard]] Clock::duration remaining() const {
    auto const left = instant_ - Clock::now();
    return left > Clock::duration::zero() ? left : Clock::duration::zero();
  }

 private:
  Clock::time_point instant_;
};

}  // namespace holdfast
