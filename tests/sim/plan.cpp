#include "plan.hpp"

#include <algorithm>
#include <variant>

#include <protocol/message.hpp>

namespace holdfast::sim {
namespace {

/// Places among the messages of those after which something is different: Ready, Contribution, Leave, Prepare,
/// Promise, Preempted, Propose, Accepted, Decided, LearnerState.
constexpr std::size_t kSteps[] = {4, 5, 7, 8, 9, 10, 11, 12, 13, 14};
constexpr std::size_t kPropose = 11;
constexpr std::size_t kAccepted = 12;
constexpr std::size_t kDecided = 13;
static_assert(std::is_same_v<std::variant_alternative_t<8, protocol::Message>, protocol::Prepare>);
static_assert(std::is_same_v<std::variant_alternative_t<kPropose, protocol::Message>, protocol::Propose>);
static_assert(std::is_same_v<std::variant_alternative_t<kAccepted, protocol::Message>, protocol::Accepted>);
static_assert(std::is_same_v<std::variant_alternative_t<kDecided, protocol::Message>, protocol::Decided>);

Fault draw(Random& random, Plan const& plan, bool may_kill) {
  using Kind = Fault::Kind;
  Fault fault;
  fault.at = random.between(150 * kMs, plan.faults_end);
  fault.member = random.below(plan.members);
  fault.other = (fault.member + 1 + random.below(plan.members - 1)) % plan.members;
  if (random.chance(15)) fault.member = plan.members + random.below(2);  // one that joined, if there is one
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
  fault.step.is_receive = random.chance(50);
  if (random.chance(80)) fault.step.kind = kSteps[random.below(std::size(kSteps))];
  fault.step.count = 1 + random.below((fault.step.kind ? 2 : 20) * plan.members);
  return fault;
}

void cut_off(Plan& plan, Time at, std::size_t member) {
  for (std::size_t other = 0; other < plan.members; ++other) {
    if (other == member) continue;
    plan.faults.push_back({at, Fault::Kind::cut, member, other});
    plan.faults.push_back({at, Fault::Kind::cut, other, member});
  }
}

/// Histories in which several rare things come together, each in its turn; their instants are drawn.
void draw_history(Random& random, Plan& plan, std::size_t fewest) {
  using Kind = Fault::Kind;
  auto const at = random.between(150 * kMs, 600 * kMs);
  auto const member = random.below(plan.members);
  switch (random.below(4)) {
    case 0:  // One is cut off; the others go on without it, and die.
      plan.rule = random.chance(50) ? protocol::QuorumRule::certified : protocol::QuorumRule::majority;
      plan.is_supervised = true;
      cut_off(plan, at, member);
      for (std::size_t other = 0; other < plan.members; ++other)
        if (other != member) plan.faults.push_back({at + random.between(700 * kMs, 1'600 * kMs), Kind::kill, other});
      break;
    case 1:  // One has the end of another granted, and dies before it.
      plan.rule = protocol::QuorumRule::certified;
      plan.is_supervised = true;
      plan.members = fewest;
      cut_off(plan, at, 0);
      plan.faults.push_back({at + random.between(700 * kMs, 1'200 * kMs), Kind::kill, 0});
      break;
    case 2: {  // A proposer dies or is cut off while it tells its value or its decision; another one dies too.
      Fault lost;
      lost.at = at;
      lost.kind = random.chance(50) ? Kind::crash_at_step : Kind::cut_at_step;
      lost.step.kind = random.chance(50) ? kPropose : kDecided;
      lost.step.count = 1 + random.below(random.chance(50) ? 2 : plan.members);
      plan.faults.push_back(lost);
      auto const other = 1 + random.below(plan.members - 1);
      if (random.chance(60)) {
        Fault crash;
        crash.at = at;
        crash.kind = Kind::crash_at_step;
        crash.member = other;
        crash.step.kind = kAccepted;
        plan.faults.push_back(crash);
      }
      plan.faults.push_back({at, random.chance(30) ? Kind::kill : Kind::accuse, 0, other});
      if (random.chance(30)) plan.faults.back().member = 1 + random.below(plan.members - 1);
      break;
    }
    default:  // A deaf member opens ballot after ballot, and stays deaf.
      plan.rule = protocol::QuorumRule::majority;
      plan.heals = false;
      plan.faults.push_back({at, Kind::impatient, member});
      break;
  }
  if (plan.rule == protocol::QuorumRule::certified) {
    plan.tie_breaker.reset();
    plan.heals = true;
  }
  for (auto const& fault : plan.faults) plan.faults_end = std::max(plan.faults_end, fault.at);
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
  auto const faults = random.chance(12) ? 0 : 1 + random.below(6);
  if (faults == 0) draw_history(random, plan, fewest);
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

std::vector<Story> stories(std::uint64_t seed) {
  using Kind = Fault::Kind;
  constexpr Time kAt = 200 * kMs;
  constexpr Time kWindow = 1'000 * kMs;
  std::vector<Story> all;
  auto const tell = [&](char const* name, std::size_t members, std::vector<Fault> faults) -> Plan& {
    Plan plan;
    plan.seed = mix(seed, all.size());
    plan.members = members;
    plan.faults = std::move(faults);
    plan.faults_end = kAt + kWindow;
    all.push_back({name, std::move(plan)});
    return all.back().plan;
  };
  tell("the coordinator dies", 4, {{kAt, Kind::kill, 0}});
  tell("the coordinator dies, with results handed over", 4, {{kAt, Kind::kill, 0}}).hands_over = true;
  tell("a member dies, and the tie breaker with one more is left", 3, {{kAt, Kind::kill, 2}}).tie_breaker = 0;
  tell("a member is stopped and resumes", 4, {{kAt, Kind::stop, 1, 0, 700 * kMs}});
  tell("a link is cut in one direction", 4, {{kAt, Kind::cut, 1, 2}}).skips = true;
  tell("two sides are cut, and healed", 5, {{kAt, Kind::partition, 0}, {kAt + 800 * kMs, Kind::heal}});
  tell("one joins", 3, {{kAt, Kind::join}});
  tell("one leaves", 4, {{kAt, Kind::leave, 1}});
  auto& fenced = tell("a stopped member is fenced", 3, {{kAt, Kind::stop, 1, 0, 2'000 * kMs}});
  fenced.rule = protocol::QuorumRule::certified;
  fenced.is_supervised = true;
  auto& certified = tell("the coordinator dies, certified", 2, {{kAt, Kind::kill, 0}});
  certified.rule = protocol::QuorumRule::certified;
  certified.is_supervised = true;
  // The supervisor has granted a fence and the process is not dead yet: whoever asked may crash in between, and then
  // nobody is left that must go on.
  auto& late = tell("a fence is under way when the faults end", 2, {{kAt, Kind::stop, 1, 0, 3'000 * kMs}});
  late.rule = protocol::QuorumRule::certified;
  late.is_supervised = true;
  late.faults_end = kAt + 750 * kMs;
  return all;
}

}  // namespace holdfast::sim
