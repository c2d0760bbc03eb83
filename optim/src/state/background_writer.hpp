#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

#include <holdfast/runtime/deadline.hpp>

namespace holdfast::optim {

/// One thread that does one job at a time. A job does not throw.
class BackgroundWriter {
 public:
  BackgroundWriter();
  /// Waits for the job that runs.
  ~BackgroundWriter() = default;

  /// @throws Error bad_argument while a job runs
  void start(std::function<void()> job);
  /// @return false when the deadline passed first
  [[nodiscard]] bool wait(Deadline deadline);

 private:
  void run(std::stop_token const& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::function<void()> job_;
  bool is_busy_ = false;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace holdfast::optim
