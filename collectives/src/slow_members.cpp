#include <cmath>
#include <string>

#include <holdfast/collectives/slow_members.hpp>
#include <holdfast/runtime/error.hpp>

namespace holdfast {

std::string_view name(SlowPolicy policy) {
  switch (policy) {
    case SlowPolicy::wait:
      return "wait";
    case SlowPolicy::skip:
      return "skip";
    case SlowPolicy::evict:
      return "evict";
  }
  return "unknown";
}

SlowMembers SlowMembers::from(Config const& config) {
  SlowMembers slow;
  if (config.slow_policy == "skip") slow.policy = SlowPolicy::skip;
  if (config.slow_policy == "evict") slow.policy = SlowPolicy::evict;
  slow.factor = static_cast<double>(config.slow_factor);
  slow.floor = config.slow_floor;
  return slow;
}

void SlowMembers::validate() const {
  if (!(std::isfinite(factor) && factor >= 1))
    throw Error(Errc::bad_argument, "slow members: the factor is " + std::to_string(factor) + ", must be at least 1");
  if (floor.count() < 0)
    throw Error(Errc::bad_argument,
                "slow members: the floor is " + std::to_string(floor.count()) + " ms, must be 0 or more");
}

}  // namespace holdfast
