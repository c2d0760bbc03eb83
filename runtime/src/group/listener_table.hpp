#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace holdfast {

/// The functions to call when something happened. Called without the lock; one that was removed is not running any
/// more when set() returns (unless it removes itself).
class ListenerTable {
 public:
  using Function = std::function<void()>;

  /// An empty function removes the listener of `key`.
  void set(void const* key, Function function);
  /// One thread at a time.
  void notify();

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  std::map<void const*, std::shared_ptr<Function>> functions_;
  void const* running_ = nullptr;
  std::thread::id runner_;
};

}  // namespace holdfast
