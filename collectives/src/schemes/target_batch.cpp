#include <algorithm>
#include <limits>

#include <holdfast/collectives/schemes/target_batch.hpp>

namespace holdfast {

void SampleRate::add(double samples, double seconds) {
  if (!(seconds > 0)) return;
  double const now = samples / seconds;
  rate_ = has_any_ ? alpha_ * now + (1 - alpha_) * rate_ : now;
  has_any_ = true;
}

double estimated_samples(std::span<MemberProgress const> members, std::uint64_t step) {
  double total = 0;
  for (auto const& member : members)
    if (member.step == step) total += member.samples + member.age_seconds * member.rate;
  return total;
}

double seconds_to_target(std::span<MemberProgress const> members, std::uint64_t step, double target) {
  double rate = 0;
  for (auto const& member : members)
    if (member.step == step) rate += member.rate;
  double const missing = target - estimated_samples(members, step);
  if (missing <= 0) return 0;
  return rate > 0 ? missing / rate : std::numeric_limits<double>::infinity();
}

double next_look_seconds(double seconds_to_target, int members) {
  auto const n = static_cast<double>(members);
  return std::clamp(seconds_to_target * n / std::max(n + 3, 1.2 * n), 0.5, 30.0);
}

double batch_weight(double samples, double target, int members) {
  return samples / (target / members);
}

bool is_too_late(std::uint64_t own_step, std::span<MemberProgress const> members) {
  return std::any_of(members.begin(), members.end(), [&](auto const& member) { return member.step > own_step + 1; });
}

}  // namespace holdfast
