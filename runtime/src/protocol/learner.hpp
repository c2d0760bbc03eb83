#pragma once

#include <chrono>
#include <map>
#include <vector>

#include "actions.hpp"
#include "message.hpp"

namespace holdfast::protocol {

/// Ids of the streams that the small all-gathers use have this bit; those of programs do not.
inline constexpr std::uint32_t kExchangeBit = 0x8000'0000U;
[[nodiscard]] inline bool is_exchange(StreamId stream) {
  return (static_cast<std::uint32_t>(stream) & kExchangeBit) != 0;
}
/// Of these, the ones that are for the members of one view. They end with it, whatever became of them, and the next
/// view counts from 1 again: they are in no report and no verdict.
inline constexpr std::uint32_t kOneViewBit = 0x4000'0000U;
[[nodiscard]] inline bool is_of_one_view(StreamId stream) {
  return is_exchange(stream) && (static_cast<std::uint32_t>(stream) & kOneViewBit) != 0;
}

/// The states of this member's streams after its last rounds, for comparison with a newcomer's.
class StateLog {
 public:
  void note(StreamPosition const& position);
  [[nodiscard]] bool holds(StreamPosition const& position) const;
  /// The newest position of each stream.
  [[nodiscard]] std::vector<StreamPosition> newest() const;
  [[nodiscard]] std::uint64_t round(StreamId stream) const;

 private:
  static constexpr std::size_t kKept = 4;
  std::map<StreamId, std::vector<StreamPosition>> positions_;
};

/// Whether a newcomer that announced these positions has exactly the state in which the new view begins.
[[nodiscard]] bool is_admissible(std::vector<StreamPosition> const& announced,
                                 std::vector<StreamVerdict> const& verdicts, StateLog const& own);

/// The newcomers that announce themselves. Bounded: strangers beyond the limit are not noted.
class LearnerTable {
 public:
  static constexpr std::size_t kMaxLearners = 256;

  /// @return true when it was not known before
  bool note(LearnerState const& state, action::Instant now);
  /// @return false when it was not known
  bool forget(MemberId member) { return learners_.erase(member) > 0; }
  /// Forgets those not heard for `limit`.
  std::vector<MemberId> expire(action::Instant now, std::chrono::nanoseconds limit);
  struct Learner {
    LearnerState state;
    action::Instant heard{};
  };
  [[nodiscard]] std::map<MemberId, Learner> const& all() const { return learners_; }

 private:
  std::map<MemberId, Learner> learners_;
};

}  // namespace holdfast::protocol
