#include "failure_detector.hpp"

#include <algorithm>

namespace holdfast::protocol {

FailureDetector::FailureDetector(int world_size, std::chrono::nanoseconds period, std::chrono::nanoseconds timeout)
    : period_(period), timeout_(timeout), peers_(static_cast<std::size_t>(world_size)) {}

void FailureDetector::watch(int rank) {
  peers_[static_cast<std::size_t>(rank)] = {true, true, own_time_};
}

void FailureDetector::unwatch(int rank) {
  peers_[static_cast<std::size_t>(rank)].is_watched = false;
}

void FailureDetector::heard(int rank) {
  peers_[static_cast<std::size_t>(rank)].was_heard = true;
}

std::vector<int> FailureDetector::tick(Instant now) {
  if (has_ticked_) own_time_ += std::min<std::chrono::nanoseconds>(now - last_tick_, 2 * period_);
  last_tick_ = now;
  has_ticked_ = true;
  std::vector<int> silent;
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    auto& peer = peers_[rank];
    if (peer.was_heard) peer.heard_at = own_time_;
    peer.was_heard = false;
    if (peer.is_watched && own_time_ - peer.heard_at > timeout_) silent.push_back(static_cast<int>(rank));
  }
  return silent;
}

std::chrono::nanoseconds FailureDetector::silence(int rank) const {
  return own_time_ - peers_[static_cast<std::size_t>(rank)].heard_at;
}

}  // namespace holdfast::protocol
