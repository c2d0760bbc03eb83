#include "state/background_writer.hpp"

#include <utility>

#include <pthread.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::optim {

BackgroundWriter::BackgroundWriter() : thread_([this](std::stop_token const& stop) { run(stop); }) {
  pthread_setname_np(thread_.native_handle(), "hf-checkpoint");
}

void BackgroundWriter::start(std::function<void()> job) {
  std::scoped_lock const lock(mutex_);
  if (is_busy_) throw Error(Errc::bad_argument, "a checkpoint is being written; wait for it first");
  job_ = std::move(job);
  is_busy_ = true;
  changed_.notify_all();
}

bool BackgroundWriter::wait(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline.instant(), [this] { return !is_busy_; });
}

void BackgroundWriter::run(std::stop_token const& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return static_cast<bool>(job_); })) {
    auto const job = std::exchange(job_, {});
    lock.unlock();
    job();
    lock.lock();
    is_busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace holdfast::optim
