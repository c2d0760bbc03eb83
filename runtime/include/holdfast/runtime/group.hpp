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
  /// Finds the other members as `config` says and joins them.
  /// @throws Error start_failed, bad_config, mismatch or environment; the message names the remedy
  [[nodiscard]] static Group join(Config const& config);

  /// `members` handles of one group inside this process, for tests and for members that are threads.
  [[nodiscard]] static std::vector<Group> in_threads(int members, Config const& config = {});

  [[nodiscard]] View view() const;
  [[nodiscard]] MemberId self() const;
  [[nodiscard]] int rank() const;
  [[nodiscard]] int world_size() const;
  [[nodiscard]] Config const& config() const;

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

 private:
  explicit Group(std::shared_ptr<GroupState> state);
  std::shared_ptr<GroupState> state_;
};

}  // namespace holdfast
