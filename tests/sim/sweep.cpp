#include "sweep.hpp"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "world.hpp"

namespace holdfast::sim {
namespace {

constexpr std::uint64_t kNever = 1'000'000'000;

/// Founders may crash at steps from the story's first fault on, a newcomer from its first message on.
void place(Plan& plan, Crash const& crash) {
  Fault fault;
  fault.at = plan.faults.front().at;
  fault.kind = Fault::Kind::crash_at_step;
  fault.member = crash.member;
  fault.step = {crash.is_receive, {}, crash.count};
  if (crash.member < plan.members)
    plan.faults.insert(plan.faults.begin(), fault);
  else
    plan.faults.push_back(fault);
}

std::size_t members_of(Plan const& plan) {
  auto const newcomers = std::count_if(plan.faults.begin(), plan.faults.end(),
                                       [](Fault const& fault) { return fault.kind == Fault::Kind::join; });
  return plan.members + static_cast<std::size_t>(newcomers);
}

}  // namespace

std::string to_text(Crash const& crash) {
  return std::to_string(crash.story) + ":" + std::to_string(crash.member) +
         (crash.is_receive ? ":receive:" : ":send:") + std::to_string(crash.count);
}

std::optional<Crash> crash_from(std::string const& text) {
  Crash crash;
  unsigned long long count = 0;
  char direction[8] = {};
  int end = 0;
  if (std::sscanf(text.c_str(), "%zu:%zu:%7[a-z]:%llu%n", &crash.story, &crash.member, direction, &count, &end) != 4 ||
      static_cast<std::size_t>(end) != text.size() || count == 0)
    return std::nullopt;
  std::string const word(direction);
  if (word != "send" && word != "receive") return std::nullopt;
  crash.is_receive = word == "receive";
  crash.count = count;
  return crash;
}

Plan plan_of(Crash const& crash, std::uint64_t seed) {
  auto plan = stories(seed).at(crash.story).plan;
  place(plan, crash);
  return plan;
}

std::vector<Crash> all_crashes(std::uint64_t seed) {
  std::vector<Crash> all;
  auto const told = stories(seed);
  for (std::size_t story = 0; story < told.size(); ++story)
    for (std::size_t member = 0; member < members_of(told[story].plan); ++member)
      for (bool const is_receive : {false, true}) {
        Crash crash{story, member, is_receive, kNever};
        World world(plan_of(crash, seed));
        if (auto const violation = world.run(); !violation.empty())
          throw std::runtime_error(std::string("story \"") + told[story].name + "\" by itself: " + violation);
        auto const steps = kNever - world.steps_left();
        for (crash.count = 1; crash.count <= steps; ++crash.count) all.push_back(crash);
      }
  return all;
}

}  // namespace holdfast::sim
