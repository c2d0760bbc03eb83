#include "plan.hpp"

#include <cstdio>

namespace holdfast::chaos {

std::string_view name(Fault fault) {
  switch (fault) {
    case Fault::kill:
      return "kill";
    case Fault::stop:
      return "stop";
    case Fault::join:
      return "join";
    case Fault::cut_link:
      return "cut-link";
    case Fault::cut_one_way:
      return "cut-one-way";
    case Fault::cut_off:
      return "cut-off";
  }
  return "";
}

Plan::Plan(std::uint64_t seed, std::uint64_t job, Kinds kinds)
    : state_(seed * 0x9E37'79B9'7F4A'7C15U + job), kinds_(kinds) {}

double Plan::real() {
  state_ += 0x9E37'79B9'7F4A'7C15U;
  auto z = state_;
  z = (z ^ (z >> 30U)) * 0xBF58'476D'1CE4'E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D0'49BB'1331'11EBU;
  z ^= z >> 31U;
  return static_cast<double>(z >> 11U) / static_cast<double>(1ULL << 53U);
}

std::chrono::milliseconds Plan::between(int least, int most) {
  return std::chrono::milliseconds(least + static_cast<int>(real() * (most - least)));
}

Event Plan::next() {
  Event event;
  event.after = between(200, 2'000);
  struct Weight {
    Fault fault;
    double weight;
  };
  Weight const weights[] = {{Fault::kill, 25},
                            {Fault::stop, 35},
                            // More than the kills, for many of them come when there is no place.
                            {Fault::join, kinds_.has_joins ? 45.0 : 0.0},
                            {Fault::cut_link, kinds_.has_cuts ? 12.0 : 0.0},
                            {Fault::cut_one_way, kinds_.has_cuts ? 10.0 : 0.0},
                            {Fault::cut_off, kinds_.has_cuts ? 18.0 : 0.0}};
  double all = 0;
  for (auto const& one : weights) all += one.weight;
  double place = real() * all;
  for (auto const& one : weights) {
    event.fault = one.fault;
    if (place < one.weight) break;
    place -= one.weight;
  }
  event.first = real();
  event.second = real();
  // Half of them end before anybody is suspected, the others after.
  event.lasts = real() < 0.5 ? between(10, 400) : between(600, 3'000);
  return event;
}

std::string describe(Event const& event) {
  char text[96];
  std::snprintf(text, sizeof text, "+%lld ms %s %.3f %.3f for %lld ms", static_cast<long long>(event.after.count()),
                std::string(name(event.fault)).c_str(), event.first, event.second,
                static_cast<long long>(event.lasts.count()));
  return text;
}

}  // namespace holdfast::chaos
