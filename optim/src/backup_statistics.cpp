#include "backup_statistics.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace holdfast::optim {

BackupStatistics::BackupStatistics(MemberId self, Rule rule, int byzantine)
    : self_(self), rule_(std::move(rule)), byzantine_(byzantine) {}

AggregateOptions BackupStatistics::aggregate(int byzantine) {
  AggregateOptions options;
  options.byzantine = byzantine;  // only its screening: what a liar says here changes the pace, not the result
  options.scope = Scope::bucket;
  return options;
}

void BackupStatistics::set(double loss, double seconds) {
  contribution_.fill(0);
  auto const place = static_cast<std::size_t>(static_cast<std::uint64_t>(self_) % kPlaces);
  contribution_[0] = loss;
  contribution_[1 + place] = seconds;
  contribution_[1 + kPlaces + place] = 1;
}

int BackupStatistics::choose(Reduction const& step, double learning_rate) {
  int const members = static_cast<int>(step.members.size());
  if (members != members_) {
    workers_.reset();
    members_ = members;
  }
  if (members < 2 || !step.spread) return 0;
  // The result is the mean over those who gave a row: each one's one tells how many they were.
  std::vector<double> arrivals;
  for (std::size_t place = 0; place < kPlaces; ++place) {
    double const share = result_[1 + kPlaces + place];
    if (share > 0) arrivals.push_back(result_[1 + place] / share);
  }
  std::sort(arrivals.begin(), arrivals.end());
  auto const waited = static_cast<int>(step.contributors.size());
  if (static_cast<int>(arrivals.size()) < waited || static_cast<int>(arrivals.size()) > members) return 0;
  if (!workers_) {
    BackupWorkers::Options options;
    options.learning_rate = learning_rate;
    options.byzantine = byzantine_;
    options.is_allowed = [this](int k) { return rule_.check_bounds(k, byzantine_).has_value(); };
    workers_.emplace(members, std::move(options));
  }
  workers_->observe(waited, arrivals, *step.spread, result_[0]);
  int const choice = workers_->choice();
  return choice < members ? choice : 0;
}

}  // namespace holdfast::optim
