#include "plan.hpp"

#include <algorithm>
#include <variant>

#include <protocol/message.hpp>

namespace holdfast::sim {
namespace {

/// Places of Ready, Prepare, Promise, Propose, Accepted, Decided among the messages.
constexpr std::size_t kSteps[] = {4, 8, 9, 11, 12, 13};
static_assert(std::is_same_v<std::variant_alternative_t<8, protocol::Message>, protocol::Prepare>);
static_assert(std::is_same_v<std::variant_alternative_t<13, protocol::Message>, protocol::Decided>);

Fault draw(Random& random, Plan const& plan, bool may_kill) {
  using Kind = Fault::Kind;
  Fault fault;
  fault.at = random.between(150 * kMs, plan.faults_end);
  fault.member = random.below(plan.members);
  fault.other = (fault.member + 1 + random.below(plan.members - 1)) % plan.members;
  fault.lasts = random.between(50 * kMs, 3'000 * kMs);
  auto const die = random.below(100);
  if (die < 16)
    fault.kind = Kind::kill;
  else if (die < 32)
    fault.kind = Kind::crash_at_step;
  else if (die < 44)
    fault.kind = Kind::stop;
  else if (die < 54)
    fault.kind = Kind::cut;
  else if (die < 62)
    fault.kind = Kind::partition;
  else if (die < 65)
    fault.kind = Kind::isolate_in;
  else if (die < 70)
    fault.kind = Kind::heal;
  else if (die < 77)
    fault.kind = Kind::lossy;
  else if (die < 88)
    fault.kind = Kind::join;
  else if (die < 93)
    fault.kind = Kind::leave;
  else if (die < 97)
    fault.kind = Kind::accuse;
  else  // Under the certified rule nobody is ever blocked, and it is the supervisor that ends a deaf member.
    fault.kind = plan.rule == protocol::QuorumRule::majority ? Kind::impatient : Kind::isolate_in;
  bool const is_deadly = fault.kind == Kind::kill || fault.kind == Kind::crash_at_step || fault.kind == Kind::leave;
  if (is_deadly && !may_kill) fault.kind = random.chance(50) ? Kind::stop : Kind::join;
  fault.message_kind = kSteps[random.below(std::size(kSteps))];
  fault.count = 1 + random.below(2 * plan.members);
  return fault;
}

}  // namespace

Plan make_plan(std::uint64_t seed, std::size_t fewest, std::size_t most) {
  Random random(mix(seed, 0x706C616E));
  Plan plan;
  plan.seed = seed;
  plan.members = fewest + random.below(most - fewest + 1);
  plan.streams = 1 + random.below(3);
  if (random.chance(30)) plan.rule = protocol::QuorumRule::certified;
  if (plan.rule == protocol::QuorumRule::majority && random.chance(33)) plan.tie_breaker = random.below(plan.members);
  plan.is_supervised = plan.rule == protocol::QuorumRule::certified || random.chance(40);
  plan.skips = random.chance(40);
  plan.hands_over = random.chance(50);
  plan.heals = plan.rule == protocol::QuorumRule::certified || random.chance(80);
  plan.faults_end = random.between(300 * kMs, 3'000 * kMs);
  auto const faults = 1 + random.below(6);
  std::size_t deaths = 0;
  for (std::size_t i = 0; i < faults; ++i) {
    // Most schedules leave a quorum; some do not, and must park.
    bool const may_kill = 2 * (deaths + 1) < plan.members || plan.is_supervised || random.chance(10);
    auto const fault = draw(random, plan, may_kill);
    using Kind = Fault::Kind;
    if (fault.kind == Kind::kill || fault.kind == Kind::crash_at_step || fault.kind == Kind::leave) ++deaths;
    plan.faults.push_back(fault);
  }
  std::stable_sort(plan.faults.begin(), plan.faults.end(), [](auto const& a, auto const& b) { return a.at < b.at; });
  return plan;
}

}  // namespace holdfast::sim
