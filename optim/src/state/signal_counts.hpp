#pragma once

#include <cstdint>

namespace holdfast::optim {

/// Counts SIGUSR1, SIGUSR2 and SIGTERM of this process while one of these exists; then what was done on them before is
/// done again. The handler adds to a number and does nothing else.
class SignalCounts {
 public:
  explicit SignalCounts(bool is_on);
  SignalCounts(SignalCounts const&) = delete;
  SignalCounts& operator=(SignalCounts const&) = delete;
  ~SignalCounts();

  /// Whether one came since this object was made or last asked.
  [[nodiscard]] bool take_save();
  [[nodiscard]] bool take_end();

 private:
  bool is_on_;
  std::uint32_t seen_save_ = 0;
  std::uint32_t seen_end_ = 0;
};

}  // namespace holdfast::optim
