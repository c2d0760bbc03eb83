#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/progress.hpp>
#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast {

class EventLog;
struct GroupState;

/// One member's handle on the group: who is here, and are we agreed?
///
/// The protocol runs on the group's own thread; it sends heartbeats, watches the other members and ends rounds.
/// Copies share one membership; the member leaves when the last copy is gone (within a second) or leave() is called.
/// A group of one has no thread and no socket, and whatever it ends is committed at once.
/// Lifetime: never keep the last copy inside a listener: the protocol thread cannot join itself.
/// Threads: all functions from any thread.
class Group {
 public:
  /// Finds the other members as `config` says and joins them; with config.join set, as a newcomer to a running job: it
  /// returns once the members are known, and enter() (or what fetches the training state) makes it a member.
  /// @throws Error start_failed, bad_config, mismatch or environment; the message names the remedy
  [[nodiscard]] static Group join(Config const& config);

  /// `members` handles of one group inside this process, for tests and for members that are threads.
  [[nodiscard]] static std::vector<Group> in_threads(int members, Config const& config = {});

  /// A group of those members that give the same name: the members of one site, say. It has a view of its own, and
  /// ranks follow those of this group. Collective over the current view. Its connections are new ones; this group and
  /// the new one live and end independently.
  /// @throws Error mismatch, start_failed or environment, as join(); view_changed when a member is lost meanwhile
  [[nodiscard]] Group subgroup(std::string_view name) const;

  [[nodiscard]] View view() const;
  [[nodiscard]] MemberId self() const;
  [[nodiscard]] int rank() const;
  [[nodiscard]] int world_size() const;
  [[nodiscard]] Config const& config() const;

  /// From join() of a running job until the members have decided a view with this one. Meanwhile view() is the members
  /// and this newcomer under number 0, which no view has, and agree() compares with what the members agreed on.
  [[nodiscard]] bool is_newcomer() const;
  /// Newcomer: its state is that which it noted last (Rounds::note_state) and goes on from there; waits until it is a
  /// member. Members: does nothing.
  /// @return pending when the deadline passed: call again; evicted when its id cannot be named any more: renew()
  Outcome<void> enter(Deadline deadline);
  /// Newcomer: what it noted of its state holds no longer; it is not to be admitted until enter() is called again.
  /// @return false: it is a member already
  bool withdraw();
  /// Newcomer: gets another id, since a later one was named first. Not while other functions are called.
  Outcome<void> renew(Deadline deadline);
  /// Where newcomers may call this member, as their key `join` takes it; empty: nowhere.
  [[nodiscard]] std::string join_address() const;

  /// Small all-gather over the control connections: every member gets the bytes of all, in rank order.
  /// @param key    names the exchange; every member calls it with the same keys, each key any number of times
  /// @param bytes  at most 1 MiB
  /// @return pending when the deadline passed first: the exchange stays open and the next call with this key takes it
  ///         up again (with the same bytes, which were already sent); member_left naming who left before it
  /// @param only_in  view whose members are meant; the call fails with view_changed when it is not, or no longer, the
  ///                 current one. Without it a view change starts the exchange again among the new members.
  /// @throws Error bad_argument: too many bytes, other bytes than the pending call gave, or two threads on one key
  /// Cost: n-1 messages per member. Not for bulk data.
  [[nodiscard]] Outcome<std::vector<std::vector<std::byte>>> all_gather(std::string_view key,
                                                                        std::span<std::byte const> bytes,
                                                                        Deadline deadline,
                                                                        std::optional<ViewId> only_in = {});

  using Fields = std::vector<std::pair<std::string, std::string>>;
  /// Checks that all members give the same (name, value) list for `subject`. On a difference every member gets the
  /// same Errc::mismatch, which names the first differing member, the field and both values.
  [[nodiscard]] Outcome<void> agree(std::string_view subject, Fields const& fields, Deadline deadline,
                                    std::optional<ViewId> only_in = {});

  /// What the members, this one among them, last agreed on for a subject. Newcomers ask the members until one knows it.
  [[nodiscard]] Outcome<Fields> agreed(std::string_view subject, Deadline deadline);

  /// Shows `fields`, at most 1 MiB, to whoever asks this member; replaces what was shown under this key.
  void publish(std::string_view key, Fields const& fields);
  /// What a member of view() has published; nothing when it has not, or does not answer in time.
  [[nodiscard]] std::optional<Fields> ask(MemberId member, std::string_view key, Deadline deadline);

  /// How many times this was called before with this name at this member: members that make the same calls get the same
  /// number, so that what they create can be told apart.
  [[nodiscard]] std::uint64_t next_number(std::string_view name);

  [[nodiscard]] Rounds& rounds();
  [[nodiscard]] EventLog& events();

  /// Why the view cannot go on, once that is known. Sticky.
  [[nodiscard]] std::optional<Failure> failure() const;

  /// Evidence from the data plane against a member: an exchange's deadline passed waiting for it, a connection broke.
  /// With on_loss = end this ends the view at all members, with a failure that names `rank`; with shrink the members
  /// decide a view without it, if enough agree.
  void suspect(int rank, std::string_view evidence);

  /// Tells the others, with the next heartbeats, what the training thread is doing. Cheap: no system call.
  void report_progress(Activity activity, RoundId round = {});
  /// What `rank` last said about its training thread, as a sentence for a message: "computing for 12.0 s".
  [[nodiscard]] std::string progress_of(int rank) const;

  /// Ends this membership in good order: the others are told that this is no failure. A round or exchange of theirs
  /// that still needs this member fails with member_left. Leaving twice does nothing.
  Outcome<void> leave(Deadline deadline);

  /// What this member has written to its control connections so far.
  [[nodiscard]] std::uint64_t control_bytes() const;

 private:
  explicit Group(std::shared_ptr<GroupState> state);
  std::shared_ptr<GroupState> state_;
};

}  // namespace holdfast
