#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::chaos {

enum class Fault : std::uint8_t { kill, stop, join, cut_link, cut_one_way, cut_off };

[[nodiscard]] std::string_view name(Fault fault);

/// One thing that happens to a job. Whom it strikes is drawn before the job begins, as a place among those who can be
/// struck then: the same seed gives the same plan.
struct Event {
  std::chrono::milliseconds after{0};  ///< since the event before
  Fault fault = Fault::kill;
  double first = 0;                    ///< from 0 to 1: place among the candidates
  double second = 0;                   ///< of the other end of a link
  std::chrono::milliseconds lasts{0};  ///< stopped or cut for so long
};

/// What happens in the job of that number.
class Plan {
 public:
  struct Kinds {
    bool has_cuts = false;
    bool has_joins = false;
  };
  Plan(std::uint64_t seed, std::uint64_t job, Kinds kinds);
  [[nodiscard]] Event next();

 private:
  double real();
  std::chrono::milliseconds between(int least, int most);

  std::uint64_t state_;
  Kinds kinds_;
};

[[nodiscard]] std::string describe(Event const& event);

}  // namespace holdfast::chaos
