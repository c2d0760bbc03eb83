#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/progress.hpp>
#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/view.hpp>

#include "actions.hpp"
#include "message.hpp"
#include "value.hpp"

namespace holdfast::protocol {

using action::Instant;

/// What happens to the view when a member is lost.
enum class OnLoss : std::uint8_t {
  end,     ///< the view fails: every member ends with the same failure
  shrink,  ///< the others agree on the next view and go on
};

/// How a loss was noticed. Only `process_ended` is certain: it is a death certificate, given after the end of the
/// process was observed and never because a kill was asked for.
enum class Evidence : std::uint8_t { process_ended, connection_lost, protocol_violation };

struct MembershipOptions {
  std::chrono::nanoseconds heartbeat_period{0};
  std::chrono::nanoseconds heartbeat_timeout{0};
  OnLoss on_loss = OnLoss::end;
  /// A member that suspects wants the supervisor to end the suspect after this much more silence
  /// (QuorumRule::certified).
  std::chrono::nanoseconds fence_after{0};
  /// How long a decision waits for a newcomer that has the last committed round still to replay.
  std::chrono::nanoseconds learner_patience{0};
  /// How long a member stays parked, or an excluded one answers, before it ends. Zero: for ever.
  std::chrono::nanoseconds parked_limit{0};
  /// Verdicts name who can hand over a finished result. The data plane must follow them.
  bool hands_over = false;
  std::uint64_t seed = 0;  ///< of the random back-off; different at every member
};

/// The membership protocol of one member: events in, actions out. No sockets, threads or clocks, so the same code runs
/// on sockets and in a simulation with virtual time.
///
/// Members are named by id; a rank is a position in the current view. Every message may be lost, repeated or reordered.
/// Threads: not synchronised.
class Membership {
 public:
  /// A member of the view that `current` describes.
  Membership(Value current, MemberId self, MembershipOptions options);
  /// A newcomer. It announces itself to whomever it is connected to, and becomes a member when a decided view names it.
  Membership(Seat self, MembershipOptions options);
  /// The same newcomer under another id, since `spent` cannot be named any more. It keeps what it noted of its state.
  Membership(Membership&& spent, Seat self, MembershipOptions options);
  ~Membership();
  Membership(Membership&&) noexcept;
  Membership& operator=(Membership&&) noexcept;

  /// Begins heartbeats and asks for connections.
  void start(Instant now);

  // Events from the network and the host. Unknown members and late messages are allowed everywhere.
  void on_connected(MemberId member, Instant now);
  /// A sign of life: part of a message that is still on its way. A heartbeat may have to wait behind it.
  void on_heard(MemberId member);
  void on_message(MemberId from, Message message, Instant now);
  void on_connection_lost(MemberId member, Evidence evidence, std::string const& what, Instant now);
  void on_timer(Instant now);

  // Events from this member.
  [[nodiscard]] StreamId open_stream(std::string_view name);
  /// Announces that every result of the round is held. With `publish` the word is stored where peers see it, called
  /// only when it may be announced; otherwise READY goes out as a message.
  /// @return aborted while frozen: the round will be committed or redone with the next view
  Outcome<void> hold(RoundId round, Digest digest, std::function<void()> const& publish);
  /// A READY word that a fabric of `view` brought; one of another view is ignored.
  void count_ready(ViewId view, RoundId round, MemberId member, Digest digest);
  /// @param only_now  for the members of this view: a change of view forgets the exchange instead of redoing it. Such
  ///                  an exchange and another one under the same key have nothing to do with each other.
  Outcome<void> contribute(std::string const& key, std::span<std::byte const> bytes, bool only_now = false);
  void report_progress(Activity activity, RoundId round, Instant now);
  /// Evidence from the data plane against one member. It stands for a while even if the member still answers.
  void suspect(MemberId member, std::string_view evidence, Instant now);
  /// An exchange's deadline passed and nobody in particular is to blame: a ballot sorts it out.
  void exchange_overdue(std::string_view what, Instant now);
  /// The state of a stream after a committed round. Members: what newcomers are compared with (needed while a newcomer
  /// is about). Newcomers: what they have reached.
  void note_state(StreamPosition position, Instant now);
  /// Whether this member would propose a view with a newcomer now if it had noted its state after the last round.
  [[nodiscard]] bool is_state_wanted(Instant now) const;
  /// Newcomers: until seek_entry() it follows the views and is not to be admitted.
  void hold_back();
  void seek_entry(Instant now);
  /// Leaves in good order: the next view is without this member. Done when Ended comes.
  void leave(Instant now);
  /// The view ends at every member with this failure: members differ in what must be equal.
  void fail_all(Failure failure);

  // State.
  [[nodiscard]] View const& view() const;
  [[nodiscard]] Value const& value() const;
  [[nodiscard]] MemberId self() const;
  [[nodiscard]] Seat const& seat() const;
  [[nodiscard]] bool is_learner() const;
  [[nodiscard]] bool is_frozen() const;
  [[nodiscard]] bool is_parked() const;
  [[nodiscard]] std::optional<Failure> const& failure() const;
  [[nodiscard]] Outcome<bool> is_committed(RoundId round) const;
  [[nodiscard]] std::uint64_t committed(StreamId stream) const;
  [[nodiscard]] std::uint64_t rounds_committed() const;
  /// The parts of the open exchange of `key` in rank order of the view that ended it; nothing while it is open.
  Outcome<std::optional<std::vector<std::vector<std::byte>>>> take_exchange(std::string const& key,
                                                                            bool only_now = false);
  [[nodiscard]] std::string describe_missing_parts(std::string const& key, Instant now, bool only_now = false) const;
  [[nodiscard]] std::string describe_progress(MemberId member, Instant now) const;
  [[nodiscard]] std::string describe_member(MemberId member) const;
  [[nodiscard]] std::string describe_round(RoundId round) const;

  [[nodiscard]] bool has_actions() const;
  /// What to do, in this order. Appends to `out`.
  void take_actions(std::vector<action::Any>& out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::protocol
