#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

namespace holdfast::fabrics {

/// An emulated link: how long one byte takes to leave, and how long everything is under way.
struct EmulatedLink {
  std::chrono::nanoseconds delay{0};
  double bytes_per_second = 0;  ///< 0: without limit
};

/// "25ms,50mbit": one-way delay and rate; either may be left out. Empty text: nothing is emulated.
/// @throws Error bad_config naming the text and what is expected
[[nodiscard]] std::optional<EmulatedLink> parse_emulated_link(std::string const& text);

/// A token bucket and then a delay, for one direction between two members.
class TcpShaper {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit TcpShaper(EmulatedLink link) : link_(link) {}

  /// Frames are cut to this size, so that small messages slip in between as they would on the wire.
  static constexpr std::size_t kMostFrameBytes = 8 << 10;

  [[nodiscard]] bool is_free(TimePoint now) const { return free_at_ <= now; }
  [[nodiscard]] TimePoint free_at() const { return free_at_; }
  /// Somebody waits for it to be free; so whatever a late wake-up leaves unused is made up for.
  void want() { is_wanted_ = true; }
  /// Takes `bytes` off the bucket. @return when they arrive
  TimePoint take(std::size_t bytes, TimePoint now);

 private:
  EmulatedLink link_;
  TimePoint free_at_{};  // when the last byte taken has left
  bool is_wanted_ = false;
};

}  // namespace holdfast::fabrics
