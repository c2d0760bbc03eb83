#pragma once

#include <map>
#include <utility>
#include <vector>

#include "acceptor.hpp"
#include "gathers.hpp"
#include "learner.hpp"
#include "membership.hpp"
#include "proposer.hpp"
#include "round_ledger.hpp"
#include "suspicion.hpp"

namespace holdfast::protocol {

/// The state of one member, in four sources: membership (life and questions), membership_messages (what arrives),
/// membership_rounds (rounds and exchanges of a view), membership_change (from one view to the next).
struct Membership::Impl {
  enum class Mode {
    learner,   ///< not in a view yet
    member,    ///< in the current view
    excluded,  ///< a view was decided without this member, which only passes the decision on
    ended,
  };

  Impl(Value current, Seat self, Mode mode, MembershipOptions options);

  // Life.
  void start(Instant now);
  void on_timer(Instant now);
  void on_connected(MemberId member, Instant now);
  void on_connection_lost(MemberId member, Evidence evidence, std::string const& what, Instant now);
  void suspect(MemberId member, std::string_view evidence, Instant now);
  void exchange_overdue(std::string_view what, Instant now);
  void note_state(StreamPosition const& position, Instant now);
  bool is_state_wanted(Instant now) const;
  void seek_entry(Instant now);
  void note_pace();
  void report_progress(Activity activity, RoundId round, Instant now);
  void leave(Instant now);
  void fail_view(Failure failure);
  void fail_suspects();
  void fail_protocol_violation(MemberId member, std::string const& what);
  void end();

  // Messages.
  void on_message(MemberId from, Message&& message, Instant now);
  void receive(MemberId from, Heartbeat const& heartbeat, Instant now);
  void receive(MemberId from, Ready const& ready, Instant now);
  void receive(MemberId from, Contribution&& contribution, Instant now);
  void receive(MemberId from, ViewFailed&& failed, Instant now);
  void receive(MemberId from, Leave const& leave, Instant now);
  void receive(MemberId from, Prepare&& prepare, Instant now);
  void receive(MemberId from, Promise&& promise, Instant now);
  void receive(MemberId from, Preempted const& preempted, Instant now);
  void receive(MemberId from, Propose&& propose, Instant now);
  void receive(MemberId from, Accepted const& accepted, Instant now);
  void receive(MemberId from, Decided&& decided, Instant now);
  void receive(MemberId from, LearnerState&& state, Instant now);
  void receive(MemberId from, Certificate const& certificate, Instant now);
  /// Whether a message of this view is for now; an older one is answered with the newest decision.
  bool is_current(MemberId from, ViewId of);
  /// Keeps a message of the view after ours until that begins here.
  bool is_early(MemberId from, ViewId of, Message&& message);

  // Rounds.
  StreamId open_stream(std::string_view name);
  Outcome<void> hold(RoundId round, Digest digest, std::function<void()> const& publish);
  void count(RoundId round, MemberId member, Digest digest, bool is_by_message);
  void committed(RoundId round, bool is_news);
  Outcome<void> contribute(std::string const& key, std::span<std::byte const> bytes, bool only_now);
  void hold_exchange(std::string const& name);
  Outcome<std::optional<std::vector<std::vector<std::byte>>>> take_exchange(std::string const& name);
  Outcome<bool> is_committed(RoundId round) const;
  std::optional<Failure> blame_leaver(RoundId round) const;
  void repeat_what_is_open();
  std::uint64_t asking_periods = 0;
  Report report() const;
  std::vector<Ready> announced() const;

  // From one view to the next.
  void evaluate(Instant now);
  void evaluate_once(Instant now);
  void answer_prepares(Instant now);
  void freeze();
  void send_promise(MemberId to);
  bool wants_change(Instant now) const;
  bool is_silent(LearnerTable::Learner const& learner, Instant now) const;
  bool is_approaching(LearnerTable::Learner const& learner, Instant now) const;
  bool is_learner_near(LearnerTable::Learner const& learner, Instant now) const;
  void open_ballot(Instant now);
  void advance_ballot(Instant now);
  void choose_value(Instant now, Instant quorum_since);
  void note_healing(Instant now);
  bool is_healing(Instant now) const;
  bool is_missing_from(MemberSet const& stayers) const;
  void decide(Instant now);
  void on_decided(Value&& value, Instant now);
  void install(Value&& value, Instant now);
  void join(Value&& value, Instant now);
  void exclude(Value&& value, Instant now);
  void begin_view(Value&& value, Instant now);
  void request_fences(Instant now);
  void park(Instant now);
  bool is_everybody_else_gone() const;

  // Speaking.
  template <typename Kind>
  void send(MemberId to, Kind message) {
    if (to != self_id()) actions.emplace_back(action::Send{to, std::move(message)});
  }
  template <typename Kind>
  void broadcast(Kind const& message) {
    for (auto const member : electorate.members) send(member, message);
  }
  Heartbeat heartbeat(Instant now) const;
  void announce(Instant now);             ///< heartbeats to all
  void announce_if_changed(Instant now);  ///< at once, if what others act on has changed
  void announce_learner();
  void trace(std::string event, EventLog::Fields fields);

  // Words.
  std::string describe_member(MemberId member) const;
  std::string describe_round(RoundId round) const;
  std::string describe_progress(MemberId member, Instant now) const;
  Failure own_absence() const;

  [[nodiscard]] MemberId self_id() const { return self.member.id; }
  [[nodiscard]] bool is_shrinking() const { return options.on_loss == OnLoss::shrink; }
  [[nodiscard]] Instant::duration periods(std::uint64_t count) const {
    return std::chrono::duration_cast<Instant::duration>(options.heartbeat_period) * static_cast<std::int64_t>(count);
  }
  std::uint64_t random();

  MembershipOptions options;
  Seat self;
  Mode mode;
  Value value;
  View view;
  int rank = 0;
  Electorate electorate;
  std::optional<Failure> failure;

  SuspicionTable table;
  Acceptor acceptor;
  Proposer proposer;
  std::optional<Report> frozen_report;  ///< what every promise in this view says
  std::map<MemberId, Ballot> prepares;  ///< not answered yet: their proposers may not lead in our eyes
  Ballot highest_seen;
  bool is_overdue = false;
  MemberSet leavers;
  bool is_leaving = false;
  Instant leaving_since{};

  LearnerTable learners;
  std::map<MemberId, Instant> learner_retry;  ///< left out once: not the reason for a ballot before then
  StateLog states;
  bool is_ready = true;  ///< learner: it may be admitted

  RoundLedger ledger{0};
  struct Stream {
    std::uint64_t held = 0;
    Digest held_digest{};
    Digest committed_digest{};
    bool was_open = false;  ///< at the last tick
    std::uint64_t committed_at_tick = 0;
    std::uint64_t recent = 0;  ///< rounds committed in the heartbeat period before the last tick
  };
  std::map<StreamId, Stream> streams;
  std::map<StreamId, std::string> stream_names;
  std::uint64_t rounds_committed = 0;
  GatherTable gathers;
  std::vector<std::pair<MemberId, Message>> early;  ///< of the next view, until it is installed here

  /// Processes whose end was observed, those included that are in no view known here yet.
  std::map<MemberId, std::string> ended_processes;
  std::map<MemberId, Instant> departed;  ///< told of the decision until then
  MemberSet contacts;                    ///< learner: whom it is connected to
  MemberSet installed;                   ///< excluded: members of the decided view that have installed it
  Instant excluded_until{};

  struct Reported {
    Progress progress;
    Instant at{};
  };
  std::map<MemberId, Reported> reported;
  Heartbeat said;  ///< the last heartbeat
  std::uint64_t sequence = 0;
  std::optional<Instant> stuck_since;
  bool was_cut_off = false;          ///< in this view, for so long that it parked
  std::optional<Instant> healed_at;  ///< since when it is not cut off any more
  bool is_parked = false;
  std::map<MemberId, Instant> unwanted_since;  ///< who should be fenced
  std::uint64_t random_state = 0;
  bool must_evaluate = false;

  std::vector<action::Any> actions;
};

}  // namespace holdfast::protocol
