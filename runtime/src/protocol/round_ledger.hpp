#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include <holdfast/runtime/rounds.hpp>

namespace holdfast::protocol {

/// Counts READYs per stream and says when a round is committed.
///
/// READY(r+1) leaves a member only after it committed r, so members differ by at most one committed round and READYs
/// can only be for the next two rounds: two tallies per stream hold everything.
class RoundLedger {
 public:
  explicit RoundLedger(int world_size);

  enum class Counted {
    counted,       ///< new, the round is still open
    committed,     ///< new, and it was the last one missing
    repeated,      ///< known already, changes nothing
    diverged,      ///< not the digest that others announced
    out_of_order,  ///< a round that its sender cannot have reached
  };
  Counted count(RoundId round, int rank, Digest digest);

  /// Rounds up to this one were committed in earlier views.
  void start_after(StreamId stream, std::uint64_t committed) { streams_[stream].committed = committed; }

  [[nodiscard]] std::uint64_t committed(StreamId stream) const;
  [[nodiscard]] bool is_committed(RoundId round) const { return round.number <= committed(round.stream); }
  /// Whether READY of `rank` was counted for the round, or for a later one.
  [[nodiscard]] bool has_ready(RoundId round, int rank) const;
  /// The digest counted first for an open round; for the message about a diverging one.
  struct Announcement {
    RoundId round;
    int rank;
    Digest digest;
  };
  [[nodiscard]] Announcement first_of(RoundId round) const;
  /// What `rank` announced and others may still miss: at most two rounds per stream.
  [[nodiscard]] std::vector<Announcement> announced_by(int rank) const;
  [[nodiscard]] std::uint64_t rounds_committed() const { return rounds_committed_; }

 private:
  struct Tally {
    std::uint64_t number = 0;
    int ready_count = 0;
    int first_rank = 0;
    Digest digest{};
    std::vector<std::uint8_t> has_ready;
  };
  struct Stream {
    std::uint64_t committed = 0;
    std::array<Tally, 2> tallies;
  };
  [[nodiscard]] Tally const* find(RoundId round) const;

  int world_size_;
  std::unordered_map<StreamId, Stream> streams_;
  std::uint64_t rounds_committed_ = 0;
};

}  // namespace holdfast::protocol
