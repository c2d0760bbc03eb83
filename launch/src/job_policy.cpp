#include "job_policy.hpp"

#include <algorithm>

namespace holdfast::launch {

JobPolicy::JobPolicy(int ranks, Options options) : options_(options), ranks_(static_cast<std::size_t>(ranks)) {}

void JobPolicy::on_started(int rank, Clock::time_point now) {
  auto& started = ranks_[static_cast<std::size_t>(rank)];
  started.state = State::running;
  started.is_member = options_.are_members;
  started.started = now;
}

void JobPolicy::on_member(int rank) {
  ranks_[static_cast<std::size_t>(rank)].is_member = true;
}

JobPolicy::Decision JobPolicy::on_ended(int rank, int status, bool by_signal, Clock::time_point now) {
  auto& ended = ranks_[static_cast<std::size_t>(rank)];
  ended.status = status;
  if (status == 0) {
    ended.state = State::done;
    return {};
  }
  if (first_status_ == 0) first_status_ = status;
  bool const is_requeue = status == kRequeueStatus;
  bool const is_elastic = options_.is_elastic || options_.max_restarts > 0;
  bool const is_accident = ended.is_member && (by_signal || status == kEvictedStatus);
  bool is_lost = options_.survives && !is_ending_ && !is_requeue && (is_accident || is_elastic);
  // It came too late to become a member.
  is_lost = is_lost || (is_ending_ && is_finishing() && ended.restarts > 0);
  ended.state = is_lost ? State::lost : State::failed;
  if (is_ending_) {
    if (is_lost) return {};
    if (!is_requeue && first_failure_ == 0) first_failure_ = status;
    return {};
  }
  if (now - ended.started >= options_.forgives_after) ended.restarts = 0;
  if (!is_requeue && !is_finishing() && ended.restarts < options_.max_restarts) {
    auto const factor = 1L << std::min(ended.restarts, 30);
    auto const pause =
        options_.backoff > options_.longest_backoff / factor ? options_.longest_backoff : options_.backoff * factor;
    ++ended.restarts;
    ended.state = State::waiting;
    return {Step::restart, now + pause, ended.restarts};
  }
  if (!is_lost && !is_requeue && first_failure_ == 0) first_failure_ = status;
  auto const left = std::count_if(ranks_.begin(), ranks_.end(), [](Rank const& other) {
    return other.state == State::running || other.state == State::waiting || other.state == State::done;
  });
  if (left > 0 && left < options_.min) return {Step::stop, {}, 0};
  // One that failed by its own decision leaves members that go on as well, if they are members.
  bool const others_go_on = options_.survives && ended.is_member;
  return {is_lost || others_go_on || is_elastic ? Step::go_on : Step::end, {}, 0};
}

int JobPolicy::status() const {
  auto const ended_with = [&](int status) {
    return std::any_of(ranks_.begin(), ranks_.end(), [status](Rank const& rank) {
      return rank.state == (status == 0 ? State::done : State::failed) && rank.status == status;
    });
  };
  if (first_failure_ != 0) return first_failure_;
  if (ended_with(kRequeueStatus)) return kRequeueStatus;
  return ended_with(0) ? 0 : first_status_;
}

int JobPolicy::lost() const {
  return static_cast<int>(
      std::count_if(ranks_.begin(), ranks_.end(), [](Rank const& rank) { return rank.state == State::lost; }));
}

int JobPolicy::running() const {
  return static_cast<int>(
      std::count_if(ranks_.begin(), ranks_.end(), [](Rank const& rank) { return rank.state == State::running; }));
}

bool JobPolicy::is_finishing() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](Rank const& rank) { return rank.state == State::done; });
}

}  // namespace holdfast::launch
