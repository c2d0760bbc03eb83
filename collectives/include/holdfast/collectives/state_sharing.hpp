#pragma once

#include <functional>
#include <memory>
#include <vector>

#include <holdfast/collectives/buffer.hpp>
#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/state_registry.hpp>

namespace holdfast {

/// A round that the members committed while a newcomer was on its way.
struct ReplayedRound {
  RoundId round{};
  Stream stream;                       ///< of this communicator
  bool has_results = false;            ///< else it failed by its rule, and the state stays what it is
  std::vector<MutableBuffer> results;  ///< in the order in which they were put into the round; may be written to
};

/// Lets newcomers into a running job: members give them the training state and the results of later rounds, newcomers
/// take both and enter when their state equals the members'.
///
///     StateSharing sharing(communicator, registry);
///     if (communicator.group().is_newcomer()) sharing.join(replay, deadline);
///     while (…) { round.commit(…); apply it to the state; sharing.boundary(); }
///
/// Between two calls of boundary() the state may change by the rounds committed between them and by nothing else, the
/// same at all members and in `replay`. One communicator per group; its lone collectives have to be waited for, too.
/// Threads:    the training thread
/// Lifetime:   communicator and registry outlive it
/// Trust:      a newcomer believes the donor's bytes as far as the digest of another member confirms them
/// Cost:       while nobody joins, one look at two words and a lock per boundary; while somebody does, a copy of the
///             state at one member, a digest at two for a few rounds, and one copy of each result
class StateSharing {
 public:
  /// Members: collective; checks that all have registered the same parts, and listens for newcomers. Newcomers:
  /// compares with what the members have registered. Where nobody may join (on_loss = end, one member) it does nothing.
  /// @throws Error mismatch naming the part, member_lost …
  StateSharing(Communicator& communicator, StateRegistry& registry);
  StateSharing(StateSharing&&) noexcept;
  StateSharing& operator=(StateSharing&&) noexcept;
  ~StateSharing();

  /// Members: the state now is that after the last round of every stream, and no round is open. Gives newcomers what
  /// they ask for; holds this member up a little, a second at most, while one lags too far behind.
  void boundary();

  /// What a round does to the registered state. @return a failure ends join() with it
  using Replay = std::function<Outcome<void>(ReplayedRound const&)>;
  /// Newcomer: fetches the state, replays rounds, and enters; does nothing at a member. On success the state is the
  /// members', and the next round is the one that they begin next.
  /// @return mismatch, diverged (the state differed after the replay, twice), pending (the deadline passed; calling
  ///         again starts over), or what `replay` said
  Outcome<void> join(Replay const& replay, Deadline deadline);

  /// Rounds that join() replayed.
  [[nodiscard]] std::uint64_t replayed_rounds() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
