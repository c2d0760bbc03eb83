#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/collectives/reduction.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/rounds.hpp>

#include "arena.hpp"
#include "pipeline/agreement.hpp"

namespace holdfast::pipeline {

/// The result of a collective in which the library served in the place of the training thread.
struct StandIn {
  ArenaMemory result;
  std::vector<float> decoded;  ///< with a codec
  std::size_t bytes = 0;       ///< of the result, decoded
};

/// A round at one member, from its first collective to its outcome.
struct RoundState {
  RoundState(std::uint32_t index_of_stream, StreamId stream, std::uint64_t number)
      : stream_index(index_of_stream), id{stream, number} {}

  std::uint32_t const stream_index;
  RoundId const id;
  std::chrono::steady_clock::time_point const started = std::chrono::steady_clock::now();

  // Of the thread that fills the round.
  std::uint32_t added = 0;
  std::size_t waiting_bytes = 0;  ///< of collectives that nobody has been woken for

  // Of the thread that drives.
  std::vector<std::unique_ptr<Agreement>> agreements;
  Agreement* step_agreement = nullptr;
  std::size_t first_open = 0;  ///< agreements before this one are held
  bool is_sealed = false;
  bool is_announced = false;  ///< READY has been sent
  bool is_over = false;       ///< `outcome` is known, if not yet to the training thread
  std::uint32_t opened = 0;   ///< collectives, without the end of the round
  bool says_its_end = false;  ///< the last of them was announced as such
  RowMask ready_counted;      ///< from the announcement on: ranks whose READY was read from the fabric
  Digest digest{};

  bool is_moving = true;  ///< something happened since moved_at was last set
  std::chrono::steady_clock::time_point moved_at = started;
  struct PendingAccusation {
    std::chrono::steady_clock::time_point due;
    Accusation accusation;
  };
  std::vector<PendingAccusation> accusations;

  // Where the training thread comes late.
  bool is_sealed_by_owner = false;                              ///< the training thread has put in all it had
  bool is_stood_in = false;                                     ///< the library opened or sealed something in its place
  bool is_contained = false;                                    ///< this member's contribution is in the result
  bool has_excess = false;                                      ///< the training thread put in more than the others did
  std::map<std::uint32_t, std::shared_ptr<StandIn>> stand_ins;  ///< by index in the round
  std::map<std::uint32_t, std::shared_ptr<Collective>> late;    ///< came for one that is stood in; never opened
  std::vector<std::shared_ptr<Collective>> kept;                ///< over, not delivered: the training thread is away

  /// Back to the state before its first collective was opened.
  void begin_again() {
    opened = 0;
    says_its_end = false;
    is_stood_in = false;
    stand_ins.clear();
    late.clear();
    is_moving = true;
    accusations.clear();
    agreements.clear();
    step_agreement = nullptr;
    first_open = 0;
    is_sealed = false;
    is_announced = false;
  }

  /// Since when a caller has been waiting for this round, ns of the steady clock; 0: none has. Of callers.
  mutable std::atomic<std::int64_t> waiting_since{0};

  // Written by the thread that drives, read by any.
  std::atomic<bool> is_finished{false};       ///< `outcome` is final, and results are where the caller wants them
  std::optional<Outcome<Reduction>> outcome;  ///< before is_finished
  std::atomic<std::uint64_t> blocker{0};      ///< Blocker, packed
};

/// The digest that READY carries: contribution sets and result hashes, or the failure's code.
[[nodiscard]] Digest digest_of(RoundState const& round, int world_size);

/// What all members will be told of a round whose results they hold.
[[nodiscard]] Outcome<Reduction> outcome_of(RoundState const& round, View const& view);

}  // namespace holdfast::pipeline
