#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

struct GroupState;

/// A named sequence of rounds, independent of the others. Every member opens the same streams.
enum class StreamId : std::uint32_t {};

struct RoundId {
  StreamId stream{};
  std::uint64_t number = 0;  ///< the first round of a stream is 1; 0 is none
  friend auto operator<=>(RoundId const&, RoundId const&) = default;
};

/// 128-bit digest of a round's contribution set and results, or of its failure code.
struct Digest {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend bool operator==(Digest const&, Digest const&) = default;
};

/// How rounds end: READY from each member to all, committed when READY of all has been counted.
///
/// Threads:     all functions from any thread; none blocks on the network or calls user code with a lock held
/// Determinism: a READY counts only for exactly this view, round and digest; another digest ends the view as `diverged`
/// Cost:        n-1 messages of one word per round, or none when a fabric carries the word (see `hold`)
/// Source:      the rules for ending a round in a quiet view (docs/protocol.md)
class Rounds {
 public:
  explicit Rounds(std::shared_ptr<GroupState> state);
  Rounds(Rounds const&) = delete;  ///< lives inside its group: keep the Group and a reference
  Rounds& operator=(Rounds const&) = delete;

  /// Stream id for a name: the same name gives the same id at every member, whatever the order of calls.
  [[nodiscard]] StreamId open_stream(std::string_view name);

  /// Declares that this member holds every result of `round` and announces READY. With an empty `publish` READY goes
  /// over the control connections; otherwise `publish` is called under the ledger's lock (it must only store a word
  /// where peers can see it), so that nothing is announced once this member is frozen.
  /// Fails (without announcing) when the view has failed, or with member_left when one who left never announced it, or
  /// with view_changed when `view` is given and is not the current one, or is about to end.
  /// @throws Error bad_argument unless the round follows the last committed one of its stream
  Outcome<void> hold(RoundId round, Digest digest, std::function<void()> const& publish = {},
                     std::optional<ViewId> view = {});

  /// Counts a READY that a fabric of `view` brought; `rank` is a position in it. Of another view: does nothing.
  void count_ready(ViewId view, RoundId round, int rank, Digest digest);

  /// The last committed round of a stream; 0: none yet.
  [[nodiscard]] std::uint64_t committed(StreamId stream) const;

  /// True once READY of all members has been counted; a failure if the view failed first, or if a member left without
  /// announcing this round (so a wait for such a member's data should ask here too). Never blocks.
  [[nodiscard]] Outcome<bool> is_committed(RoundId round) const;

  /// The digest of the training state after a committed round of a stream. Members: what newcomers are compared with.
  /// Newcomers: how far they are; an empty digest says no more than that.
  void note_state(RoundId after, Digest state);
  /// Whether a newcomer is so near that this member should note its state after each round.
  [[nodiscard]] bool is_state_wanted() const;

  /// Called (on the protocol thread, briefly, without locks) whenever a round commits over the control connections, a
  /// member leaves or the view fails. Replaces the previous listener of the same key; an empty function removes it, and
  /// on return the removed listener is not running.
  void set_listener(void const* key, std::function<void()> listener);

 private:
  std::shared_ptr<GroupState> state_;
};

}  // namespace holdfast
