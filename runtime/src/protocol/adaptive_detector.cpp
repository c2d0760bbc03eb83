#include "adaptive_detector.hpp"

#include <algorithm>

namespace holdfast::protocol {
namespace {

constexpr int kMostPatience = 8;

}  // namespace

AdaptiveDetector::AdaptiveDetector(std::chrono::nanoseconds period, std::chrono::nanoseconds timeout)
    : period_(period), timeout_(timeout) {}

void AdaptiveDetector::watch(MemberId member) {
  auto const [at, is_new] = peers_.try_emplace(member);
  if (is_new) at->second.patience = timeout_;
  at->second.heard_at = own_time_;
  at->second.is_silent = false;
}

void AdaptiveDetector::unwatch(MemberId member) {
  peers_.erase(member);
}

void AdaptiveDetector::heard(MemberId member) {
  auto const found = peers_.find(member);
  if (found == peers_.end()) return;
  auto& peer = found->second;
  peer.was_heard = true;
  if (!peer.is_silent) return;
  peer.is_silent = false;
  peer.heard_at = own_time_;
  peer.patience = std::min(2 * peer.patience, kMostPatience * timeout_);
}

void AdaptiveDetector::tick(action::Instant now) {
  if (has_ticked_) own_time_ += std::min<std::chrono::nanoseconds>(now - last_tick_, 2 * period_);
  last_tick_ = now;
  has_ticked_ = true;
  for (auto& [member, peer] : peers_) {
    if (peer.was_heard) peer.heard_at = own_time_;
    peer.was_heard = false;
    if (own_time_ - peer.heard_at > peer.patience) peer.is_silent = true;
  }
}

bool AdaptiveDetector::is_silent(MemberId member) const {
  auto const found = peers_.find(member);
  return found != peers_.end() && found->second.is_silent;
}

std::chrono::nanoseconds AdaptiveDetector::silence(MemberId member) const {
  auto const found = peers_.find(member);
  return found == peers_.end() ? std::chrono::nanoseconds{0} : own_time_ - found->second.heard_at;
}

std::chrono::nanoseconds AdaptiveDetector::patience(MemberId member) const {
  auto const found = peers_.find(member);
  return found == peers_.end() ? timeout_ : found->second.patience;
}

}  // namespace holdfast::protocol
