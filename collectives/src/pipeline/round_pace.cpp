#include "pipeline/round_pace.hpp"

#include <algorithm>
#include <vector>

namespace holdfast::pipeline {

namespace {

constexpr std::size_t kRecent = 31;
constexpr std::size_t kEnough = 3;

}  // namespace

void RoundPace::ended(Instant now) {
  began_ = now;
  half_since_.reset();
  is_sampled_ = false;
}

void RoundPace::half_waits(Instant now) {
  if (half_since_) return;
  half_since_ = now;
  sample(now);
}

void RoundPace::sample(Instant now) {
  if (!began_ || is_sampled_) return;
  is_sampled_ = true;
  recent_.push_back(now - *began_);
  if (recent_.size() > kRecent) recent_.pop_front();
}

std::chrono::nanoseconds RoundPace::limit() const {
  if (recent_.size() < kEnough) return std::chrono::nanoseconds{0};
  std::vector<std::chrono::nanoseconds> sorted(recent_.begin(), recent_.end());
  auto const middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return std::chrono::nanoseconds(static_cast<std::int64_t>(slow_.factor * static_cast<double>(middle->count())));
}

std::chrono::nanoseconds RoundPace::elapsed(Instant now) const {
  return began_ ? now - *began_ : std::chrono::nanoseconds{0};
}

bool RoundPace::is_late(Instant now) const {
  if (!half_since_ || now - *half_since_ < slow_.floor) return false;
  return !began_ || now - *began_ >= limit();
}

}  // namespace holdfast::pipeline
