#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/view.hpp>

#include "member_set.hpp"

/// What a change of view decides.
namespace holdfast::protocol {

/// Orders the attempts to decide one view. Number 0 is before every ballot.
struct Ballot {
  std::uint64_t number = 0;
  MemberId proposer{};
  friend auto operator<=>(Ballot const&, Ballot const&) = default;
};

/// Who must answer so that the next view can be decided. Recorded in a view for its successor: one rule per view.
enum class QuorumRule : std::uint8_t {
  majority,  ///< more than half of the votes; or all members without a death certificate, if the certified hold no more
             ///< than half of the votes
  certified,  ///< all members without a death certificate
};

/// A member and how it can be reached. `contact` is the business of whoever carries the messages.
struct Seat {
  Member member;
  std::string contact;
  friend bool operator==(Seat const&, Seat const&) = default;
};

/// Where a stream stands when a view begins.
struct StreamVerdict {
  StreamId stream{};
  std::uint64_t committed = 0;  ///< rounds up to here are committed; later ones are redone in the new view
  Digest digest{};              ///< of the last committed round
  /// Stayers that hold the result of round committed + 1, if results are handed over: then the others fetch that result
  /// from one of them instead of a redo, everywhere. Empty: redo.
  std::vector<MemberId> holders;
  Digest held{};  ///< of the result to be handed over
  friend bool operator==(StreamVerdict const&, StreamVerdict const&) = default;
};

/// Decided whole: an accepted value is adopted unchanged by every later ballot.
struct Value {
  ViewId number{};
  std::vector<Seat> seats;              ///< stayers and newcomers in ascending id
  std::vector<StreamVerdict> verdicts;  ///< ascending streams; one that is missing stands at round 0
  QuorumRule quorum = QuorumRule::majority;
  std::optional<MemberId> tie_breaker;  ///< has one and a half votes
  MemberId highest_named{};             ///< every id in any view so far is at most this: a newcomer's is higher
  std::uint64_t seed = 0;               ///< for rules that draw random numbers; different in every view

  [[nodiscard]] bool names(MemberId member) const;
  [[nodiscard]] MemberSet members() const;
  [[nodiscard]] View view() const;
  [[nodiscard]] StreamVerdict verdict(StreamId stream) const;
  friend bool operator==(Value const&, Value const&) = default;
};

/// The value of a job's first view.
[[nodiscard]] Value first_value(std::vector<Seat> seats, QuorumRule quorum, std::optional<MemberId> tie_breaker,
                                std::uint64_t seed);

}  // namespace holdfast::protocol
