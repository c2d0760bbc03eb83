#include <algorithm>
#include <string>

#include <holdfast/collectives/schemes/backup_workers.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {
namespace {

/// The squared gradient is a difference of two estimates and may come out as nothing: at least this part of the mean's.
constexpr double kLeastShare = 1e-3;

}  // namespace

GradientSpread GradientSpread::of(double trace, double total, int rows) {
  auto const k = static_cast<double>(rows);
  GradientSpread spread;
  spread.mean_squared = total / (k * k);
  spread.variance = rows < 2 ? 0 : std::max((trace - total / k) / (k - 1), 0.0);
  spread.gradient_squared = std::max(spread.mean_squared - spread.variance / k, kLeastShare * spread.mean_squared);
  return spread;
}

BackupWorkers::BackupWorkers(int members, Options options)
    : members_(members),
      options_(std::move(options)),
      seconds_(static_cast<std::size_t>(members) + 1, 0),
      seen_(static_cast<std::size_t>(members) + 1, 0) {
  if (members < 1 || options_.byzantine < 0 || 2 * options_.byzantine >= members || options_.window < 1 ||
      !(options_.learning_rate > 0))
    throw Error(Errc::bad_argument,
                "backup workers need members > 2 f, a window of at least 1 and a learning rate "
                "above 0; here members = " +
                    std::to_string(members) + " and f = " + std::to_string(options_.byzantine));
}

void BackupWorkers::observe(int waited, std::span<double const> arrivals, GradientSpread const& spread, double loss) {
  if (waited < 1 || waited > members_ || static_cast<int>(arrivals.size()) < waited ||
      static_cast<int>(arrivals.size()) > members_)
    throw Error(Errc::bad_argument, "a step waited for " + std::to_string(waited) + " of " +
                                        std::to_string(arrivals.size()) + " arrivals; there are " +
                                        std::to_string(members_) + " members");
  if (has_observed_) {
    // loss fell by gain(k) = (eta - L eta^2 / 2) g - (L eta^2 / 2) s / k: solved for L.
    double const eta = options_.learning_rate;
    double const scale = eta * eta * (spread_.gradient_squared + spread_.variance / last_waited_);
    if (scale > 0) {
      double const fell = last_loss_ - loss;
      smoothness_.push_back(std::max(2 * (eta * spread_.gradient_squared - fell) / scale, 0.0));
      if (smoothness_.size() > options_.window) smoothness_.pop_front();
    }
  }
  for (std::size_t k = 1; k <= arrivals.size(); ++k) {
    seconds_[k] += arrivals[k - 1];
    ++seen_[k];
  }
  spread_ = spread;
  last_loss_ = loss;
  last_waited_ = waited;
  has_observed_ = true;
}

double BackupWorkers::smoothness() const {
  if (smoothness_.empty()) return 0;
  std::vector<double> sorted(smoothness_.begin(), smoothness_.end());
  std::sort(sorted.begin(), sorted.end());
  auto const n = sorted.size();
  return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double BackupWorkers::gain(int waited) const {
  double const eta = options_.learning_rate;
  double const curvature = smoothness() * eta * eta / 2;
  return (eta - curvature) * spread_.gradient_squared - curvature * spread_.variance / waited;
}

double BackupWorkers::duration(int waited) const {
  // Pool adjacent violators: the increasing sequence closest to the means.
  struct Block {
    double seconds;
    double weight;
    int last;
  };
  std::vector<Block> blocks;
  for (int k = 1; k <= members_; ++k) {
    auto const index = static_cast<std::size_t>(k);
    if (seen_[index] == 0) continue;
    blocks.push_back({seconds_[index] / seen_[index], seen_[index], k});
    while (blocks.size() > 1 && blocks[blocks.size() - 2].seconds > blocks.back().seconds) {
      auto const last = blocks.back();
      blocks.pop_back();
      auto& before = blocks.back();
      double const weight = before.weight + last.weight;
      before = {(before.seconds * before.weight + last.seconds * last.weight) / weight, weight, last.last};
    }
  }
  for (auto const& block : blocks)
    if (waited <= block.last) return block.seconds;
  return blocks.empty() ? 0 : blocks.back().seconds;
}

int BackupWorkers::choice() const {
  int const least = 2 * options_.byzantine + 1;
  if (smoothness_.empty()) return members_;
  int best = members_;
  double most = 0;
  for (int k = least; k <= members_; ++k) {
    if (k < members_ && options_.is_allowed && !options_.is_allowed(k)) continue;
    double const seconds = duration(k);
    double const rate = seconds > 0 ? gain(k) / seconds : 0;
    if (rate > most) {
      most = rate;
      best = k;
    }
  }
  return best;
}

}  // namespace holdfast
