#include "listener_table.hpp"

#include <exception>
#include <string>
#include <utility>

#include <holdfast/runtime/log.hpp>

namespace holdfast {

void ListenerTable::set(void const* key, Function function) {
  std::unique_lock lock(mutex_);
  if (function)
    functions_[key] = std::make_shared<Function>(std::move(function));
  else
    functions_.erase(key);
  idle_.wait(lock, [&] { return running_ != key || runner_ == std::this_thread::get_id(); });
}

void ListenerTable::notify() {
  std::unique_lock lock(mutex_);
  auto const functions = functions_;
  for (auto const& [key, function] : functions) {
    auto const current = functions_.find(key);
    if (current == functions_.end() || current->second != function) continue;
    running_ = key;
    runner_ = std::this_thread::get_id();
    lock.unlock();
    try {
      (*function)();
    } catch (std::exception const& error) {
      log_error(std::string("a listener threw, which it must not: ") + error.what());
    }
    lock.lock();
    running_ = nullptr;
    idle_.notify_all();
  }
}

}  // namespace holdfast
