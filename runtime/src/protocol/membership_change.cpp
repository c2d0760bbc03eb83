#include <algorithm>
#include <utility>

#include "../text.hpp"
#include "membership_impl.hpp"
#include "who_leaves.hpp"

namespace holdfast::protocol {
namespace {

// In heartbeat periods, as checked by simulation: a ballot is given up after 20 to 30, the next one is opened 10 to 25
// after the one before, members that are not suspected get 6 to promise.
constexpr std::uint64_t kBallotPeriods = 20;
constexpr std::uint64_t kBallotSpread = 10;
constexpr std::uint64_t kPausePeriods = 10;
constexpr std::uint64_t kPauseSpread = 15;
constexpr std::uint64_t kPromisePeriods = 6;
constexpr std::uint64_t kDepartedPeriods = 100;
constexpr std::uint64_t kSettlingPeriods = 2;
constexpr int kHealing = 3;  ///< heartbeat timeouts for which links that were cut may come back one after another
constexpr int kDefaultAnswers = 20;  ///< heartbeat timeouts for which an excluded member answers, if no limit was set

std::string name_members(MemberSet const& members) {
  std::string names;
  for (auto const member : members)
    names += (names.empty() ? "" : ",") + std::to_string(static_cast<std::uint64_t>(member));
  return names;
}

std::int64_t number(ViewId view) {
  return static_cast<std::int64_t>(view);
}

}  // namespace

void Membership::Impl::evaluate(Instant now) {
  // A decision begins a new view, which is looked at again: its members may be suspected already.
  do {
    must_evaluate = false;
    evaluate_once(now);
  } while (must_evaluate);
}

void Membership::Impl::evaluate_once(Instant now) {
  if (mode != Mode::member || failure) return;
  for (auto const member : table.refresh(now))
    trace("suspicion", {{"view", number(view.id)},
                        {"member", static_cast<std::int64_t>(member)},
                        {"by", static_cast<std::int64_t>(self_id())},
                        {"certain", table.certified().contains(member)},
                        {"evidence", table.why(member)}});
  if (!is_shrinking()) {
    if (!table.suspects().empty()) fail_suspects();
    return;
  }
  if (is_leaving && is_everybody_else_gone()) return end();
  note_healing(now);
  announce_if_changed(now);
  answer_prepares(now);
  if (wants_change(now)) open_ballot(now);
  advance_ballot(now);
  if (mode != Mode::member || must_evaluate) return;
  request_fences(now);
  park(now);
  announce_if_changed(now);
}

// --- promising ---------------------------------------------------------------------------------------------------

void Membership::Impl::answer_prepares(Instant) {
  for (auto at = prepares.begin(); at != prepares.end();) {
    auto const [from, ballot] = *at;
    if (ballot < acceptor.promised()) {
      send(from, Preempted{view.id, ballot, acceptor.promised()});
    } else if (ballot == acceptor.promised() || table.may_promise_to(from)) {
      if (!acceptor.is_frozen()) freeze();
      acceptor.promise(ballot);
      send_promise(from);
    } else {
      ++at;  // Its lower ranks are not out in our eyes yet: perhaps they will be in a moment.
      continue;
    }
    at = prepares.erase(at);
  }
}

void Membership::Impl::freeze() {
  frozen_report = report();
  trace("freeze", {{"view", number(view.id)}});
  actions.emplace_back(action::Freeze{view.id});
}

void Membership::Impl::send_promise(MemberId to) {
  Promise promise{view.id, acceptor.promised(), *frozen_report, acceptor.accepted_ballot(), acceptor.accepted()};
  if (to == self_id())
    proposer.on_promise(to, std::move(promise));
  else
    send(to, std::move(promise));
}

// --- proposing ---------------------------------------------------------------------------------------------------

bool Membership::Impl::wants_change(Instant now) const {
  if (is_overdue || acceptor.is_frozen() || table.is_anyone_suspected() || table.is_ballot_open_elsewhere())
    return true;
  // A moment's patience, since members tend to leave together.
  if (!leavers.empty() && now - leaving_since >= periods(1)) return true;
  return std::any_of(learners.all().begin(), learners.all().end(),
                     [&](auto const& entry) { return is_learner_near(entry.second, now); });
}

bool Membership::Impl::is_silent(LearnerTable::Learner const& learner, Instant now) const {
  return now - learner.heard > std::chrono::duration_cast<Instant::duration>(options.heartbeat_timeout);
}

bool Membership::Impl::is_approaching(LearnerTable::Learner const& learner, Instant now) const {
  auto const& state = learner.state;
  if (!state.is_ready || state.seat.member.id <= value.highest_named || is_silent(learner, now)) return false;
  if (auto const retry = learner_retry.find(state.seat.member.id); retry != learner_retry.end() && now < retry->second)
    return false;
  return std::all_of(streams.begin(), streams.end(), [&](auto const& entry) {
    auto const& [id, stream] = entry;
    auto const committed = ledger.committed(id);
    if (is_exchange(id) || committed == 0) return true;
    auto const at = std::find_if(state.positions.begin(), state.positions.end(),
                                 [id = id](StreamPosition const& position) { return position.stream == id; });
    // Short rounds outrun its announcements: what it lacks then is a matter of half a heartbeat period.
    return at != state.positions.end() && at->round + 1 + stream.recent / 2 >= committed;
  });
}

bool Membership::Impl::is_learner_near(LearnerTable::Learner const& learner, Instant now) const {
  return is_approaching(learner, now) && std::all_of(streams.begin(), streams.end(), [&](auto const& entry) {
           auto const& [id, stream] = entry;
           auto const committed = ledger.committed(id);
           if (is_exchange(id) || committed == 0) return true;
           // A round that is held but not committed may end either way: wait for a clear moment.
           return stream.held <= committed && states.round(id) >= committed;
         });
}

bool Membership::Impl::is_state_wanted(Instant now) const {
  if (mode != Mode::member || failure || !is_shrinking() || !table.may_lead(self_id())) return false;
  return std::any_of(learners.all().begin(), learners.all().end(),
                     [&](auto const& entry) { return is_approaching(entry.second, now); });
}

void Membership::Impl::open_ballot(Instant now) {
  if (table.is_blocked() || !table.may_lead(self_id())) return;
  auto const highest = std::max({acceptor.promised(), table.highest_promise(), highest_seen});
  if (!proposer.may_open(now, highest)) return;
  Ballot const ballot{std::max(highest, proposer.ballot()).number + 1, self_id()};
  auto const growth = std::min<std::uint64_t>(1 + static_cast<std::uint64_t>(proposer.attempts()) / 4, 3);
  proposer.open(ballot, now + periods(kBallotPeriods + random() % kBallotSpread),
                now + periods((kPausePeriods + random() % kPauseSpread) * growth));
  if (!acceptor.is_frozen()) freeze();
  acceptor.promise(ballot);
  trace("ballot", {{"view", number(view.id)},
                   {"ballot", static_cast<std::int64_t>(ballot.number)},
                   {"suspects", name_members(table.suspects())}});
  announce_if_changed(now);
  send_promise(self_id());
  broadcast(Prepare{value, ballot});
}

void Membership::Impl::advance_ballot(Instant now) {
  if (proposer.phase() == Proposer::Phase::idle || acceptor.promised() != proposer.ballot()) return;
  if (proposer.phase() == Proposer::Phase::preparing) {
    auto const since = proposer.quorum_since(electorate, table.certified(), now);
    if (since) choose_value(now, *since);
  }
  if (proposer.phase() == Proposer::Phase::proposing && is_quorum(electorate, proposer.accepted(), table.certified()))
    decide(now);
}

void Membership::Impl::choose_value(Instant now, Instant quorum_since) {
  auto const promisers = proposer.promisers();
  bool const is_whole = std::all_of(electorate.members.begin(), electorate.members.end(), [&](MemberId member) {
    return promisers.contains(member) || table.suspects().contains(member);
  });
  if (!is_whole && now - quorum_since < periods(kPromisePeriods)) return;

  auto chosen = value_to_adopt(proposer.promises());
  if (!chosen) {
    Plan plan;
    plan.hands_over = options.hands_over;
    plan.stayers = promisers;
    if (electorate.rule == QuorumRule::majority) {
      auto const clique =
          without_lost_links(promisers, [&](MemberId a, MemberId b) { return table.is_link_lost(a, b); });
      if (is_quorum(electorate, clique, table.certified())) plan.stayers = clique;
      // One that promised and then died is no basis for a view: the next ballot asks who is there.
      if (std::any_of(plan.stayers.begin(), plan.stayers.end(),
                      [&](MemberId member) { return table.suspects().contains(member); }))
        return;
    }
    auto const all = plan.stayers;
    if (is_healing(now) && is_missing_from(all)) return;
    for (auto const leaver : leavers) plan.stayers.erase(leaver);
    if (plan.stayers.empty()) plan.stayers = all;

    auto fresh = fresh_value(value, proposer.promises(), plan);
    if (!fresh) return fail_view(std::move(fresh.error()));
    // Only after a round whose state this member has noted can anybody be found equal to it.
    bool const can_compare =
        std::all_of(fresh->verdicts.begin(), fresh->verdicts.end(), [&](StreamVerdict const& verdict) {
          return is_exchange(verdict.stream) || verdict.committed == 0 ||
                 states.round(verdict.stream) == verdict.committed;
        });
    bool is_one_coming = false;
    MemberSet left_out;
    for (auto const& [id, learner] : learners.all()) {
      if (!learner.state.is_ready || id <= value.highest_named || is_silent(learner, now)) continue;
      if (is_admissible(learner.state.positions, fresh->verdicts, states)) {
        plan.newcomers.push_back(learner.state.seat);
      } else if (can_compare && is_approaching(learner, now)) {
        is_one_coming = true;
        (void)left_out.insert(id);
      }
    }
    if (is_one_coming && now - quorum_since < std::chrono::duration_cast<Instant::duration>(options.learner_patience))
      return;
    auto const again = now + 4 * std::chrono::duration_cast<Instant::duration>(options.heartbeat_timeout);
    for (auto const id : left_out) {
      learner_retry[id] = again;
      trace("newcomer_waits", {{"member", static_cast<std::int64_t>(id)},
                               {"reason", std::string("it had not reached the state in which the next view begins")}});
    }
    fresh = fresh_value(value, proposer.promises(), plan);
    chosen = std::move(*fresh);
  }
  acceptor.accept(proposer.ballot(), *chosen);
  proposer.propose(std::move(*chosen));
  proposer.on_accepted(self_id());
  broadcast(Propose{view.id, proposer.ballot(), proposer.value()});
}

// Between two halves the links do not come back at one instant. Without patience the first quorum that hears itself
// would go on without those whose links are a moment later, and with none in the next ballot members would compete that
// have not heard yet who leads; the pause after a ballot that failed in the partition says nothing of the time after.
void Membership::Impl::note_healing(Instant now) {
  if (table.is_blocked()) {
    was_cut_off = was_cut_off || is_parked;
    healed_at.reset();
  } else if (was_cut_off && !healed_at) {
    healed_at = now;
    proposer.wait_until(now + periods(kSettlingPeriods));
  }
}

bool Membership::Impl::is_healing(Instant now) const {
  return healed_at &&
         now - *healed_at < kHealing * std::chrono::duration_cast<Instant::duration>(options.heartbeat_timeout);
}

bool Membership::Impl::is_missing_from(MemberSet const& stayers) const {
  return std::any_of(electorate.members.begin(), electorate.members.end(), [&](MemberId member) {
    return !stayers.contains(member) && !leavers.contains(member) && !table.certified().contains(member);
  });
}

void Membership::Impl::decide(Instant now) {
  auto decided = proposer.value();
  trace("decision", {{"view", number(decided.number)},
                     {"ballot", static_cast<std::int64_t>(proposer.ballot().number)},
                     {"members", name_members(decided.members())}});
  broadcast(Decided{decided});
  for (auto const& seat : decided.seats)
    if (!electorate.members.contains(seat.member.id)) send(seat.member.id, Decided{decided});
  on_decided(std::move(decided), now);
}

// --- the next view -----------------------------------------------------------------------------------------------

void Membership::Impl::on_decided(Value&& decided, Instant now) {
  if (failure && mode != Mode::excluded) return;
  switch (mode) {
    case Mode::learner:
      join(std::move(decided), now);
      break;
    case Mode::member:
      if (decided.number <= view.id) return;
      if (static_cast<std::uint64_t>(decided.number) == static_cast<std::uint64_t>(view.id) + 1 &&
          decided.names(self_id()))
        install(std::move(decided), now);
      else
        exclude(std::move(decided), now);
      break;
    case Mode::excluded:
      if (decided.number <= value.number) return;
      value = std::move(decided);
      electorate = electorate_of(value);
      installed.clear();
      break;
    case Mode::ended:
      break;
  }
}

void Membership::Impl::install(Value&& decided, Instant now) {
  std::erase_if(streams, [](auto const& entry) { return is_of_one_view(entry.first); });
  for (auto const& [id, stream] : streams) {
    auto const verdict = decided.verdict(id);
    auto const own = ledger.committed(id);
    bool const is_held = stream.held > own;
    auto const held = is_held ? stream.held : own;
    auto const& digest = verdict.committed == own ? stream.committed_digest : stream.held_digest;
    if (verdict.committed < own || verdict.committed > held || (verdict.committed > 0 && !(digest == verdict.digest))) {
      Failure diverged;
      diverged.code = Errc::diverged;
      diverged.operation = describe_round({id, verdict.committed});
      diverged.where = "view " + std::to_string(static_cast<std::uint64_t>(decided.number));
      diverged.detail = "the next view begins after a round that this member does not have so; it has committed " +
                        std::to_string(own) + " and holds " + std::to_string(held);
      return fail_view(std::move(diverged));
    }
  }
  std::vector<RoundId> resolved;
  for (auto& [id, stream] : streams) {
    auto const until = decided.verdict(id).committed;
    for (auto round = ledger.committed(id) + 1; round <= until; ++round) resolved.push_back({id, round});
    if (until > ledger.committed(id)) stream.committed_digest = stream.held_digest;
    if (stream.held > until)
      trace("redo", {{"view", number(decided.number)},
                     {"stream", static_cast<std::int64_t>(static_cast<std::uint32_t>(id))},
                     {"round", static_cast<std::int64_t>(stream.held)}});
    stream.held = until;
  }
  for (auto const round : resolved) {
    trace("resolved", {{"view", number(decided.number)},
                       {"stream", static_cast<std::int64_t>(static_cast<std::uint32_t>(round.stream))},
                       {"round", static_cast<std::int64_t>(round.number)}});
    committed(round, true);
  }
  begin_view(std::move(decided), now);
}

void Membership::Impl::join(Value&& decided, Instant now) {
  if (decided.number <= value.number) return;
  bool const is_exact =
      std::all_of(decided.verdicts.begin(), decided.verdicts.end(), [&](StreamVerdict const& verdict) {
        return is_exchange(verdict.stream) || states.round(verdict.stream) == verdict.committed;
      });
  // Two newcomers that asked at the same time may have been given one id: only one of them is meant.
  bool const is_meant =
      std::any_of(decided.seats.begin(), decided.seats.end(), [&](Seat const& seat) { return seat == self; });
  if (is_meant && is_exact && is_ready) {
    for (auto const& verdict : decided.verdicts) streams[verdict.stream].committed_digest = verdict.digest;
    mode = Mode::member;
    return begin_view(std::move(decided), now);
  }
  if (decided.highest_named >= self_id()) {
    Failure spent;
    spent.code = Errc::evicted;
    spent.view = decided.number;
    spent.failed_members = {self_id()};
    spent.operation = "join";
    spent.detail = "id " + std::to_string(static_cast<std::uint64_t>(self_id())) +
                   " cannot be named any more; announce again under one above " +
                   std::to_string(static_cast<std::uint64_t>(decided.highest_named));
    failure = std::move(spent);
    actions.emplace_back(action::Evicted{});
    return end();
  }
  for (auto const& seat : value.seats)
    if (!decided.names(seat.member.id)) actions.emplace_back(action::Disconnect{seat.member.id});
  for (auto const& seat : decided.seats)
    if (!value.names(seat.member.id)) actions.emplace_back(action::Connect{seat});
  value = std::move(decided);
  announce_learner();
}

void Membership::Impl::exclude(Value&& decided, Instant now) {
  if (!acceptor.is_frozen()) actions.emplace_back(action::Freeze{view.id});
  if (static_cast<std::uint64_t>(decided.number) == static_cast<std::uint64_t>(view.id) + 1)
    for (auto const& [id, stream] : streams)
      if (auto const round = ledger.committed(id) + 1; stream.held == round && decided.verdict(id).committed >= round) {
        ledger.start_after(id, round);
        committed({id, round}, true);
      }
  trace("excluded", {{"view", number(decided.number)}, {"leaving", is_leaving}});
  if (!is_leaving) {
    Failure evicted;
    evicted.code = Errc::evicted;
    evicted.view = decided.number;
    evicted.failed_members = {self_id()};
    evicted.where = "view change";
    evicted.detail = "the others went on in view " + std::to_string(static_cast<std::uint64_t>(decided.number)) +
                     " without this member, which was silent or cut off; it may come back as a newcomer";
    failure = std::move(evicted);
    actions.emplace_back(action::Evicted{});
  }
  if (is_parked) actions.emplace_back(action::Unparked{});
  is_parked = false;
  mode = Mode::excluded;
  value = std::move(decided);
  electorate = electorate_of(value);
  installed.clear();
  auto const limit =
      options.parked_limit.count() > 0 ? options.parked_limit : options.heartbeat_timeout * kDefaultAnswers;
  excluded_until = now + std::chrono::duration_cast<Instant::duration>(limit);
  for (auto const member : electorate.members) send(member, Decided{value});
}

void Membership::Impl::begin_view(Value&& decided, Instant now) {
  auto const before = electorate.members;
  auto const dead = table.certified();
  bool const was_leaving_announced = is_leaving;
  value = std::move(decided);
  view = value.view();
  rank = view.rank_of(self_id()).value_or(0);
  electorate = electorate_of(value);
  table.begin_view(view.id, electorate);
  // Whoever is in no view now is in none later.
  std::erase_if(ended_processes, [&](auto const& entry) {
    return entry.first <= value.highest_named && !electorate.members.contains(entry.first);
  });
  for (auto const& [member, what] : ended_processes) (void)table.certify(member, what);
  acceptor = {};
  proposer = {};
  frozen_report.reset();
  prepares.clear();
  highest_seen = {};
  is_overdue = false;
  unwanted_since.clear();

  ledger = RoundLedger(view.world_size());
  for (auto const& verdict : value.verdicts) {
    ledger.start_after(verdict.stream, verdict.committed);
    streams[verdict.stream].held = verdict.committed;
  }
  for (auto const& seat : value.seats) {
    auto const id = seat.member.id;
    learners.forget(id);
    learner_retry.erase(id);
    if (id == self_id() || before.contains(id)) continue;
    reported[id] = {{}, now};
    actions.emplace_back(action::Connect{seat});
  }
  for (auto const member : before) {
    if (electorate.members.contains(member)) continue;
    reported.erase(member);
    if (leavers.contains(member)) actions.emplace_back(action::MemberLeft{member});
    if (dead.contains(member)) {
      actions.emplace_back(action::Disconnect{member});
      continue;
    }
    departed[member] = now + periods(kDepartedPeriods);
    send(member, Decided{value});
    send(member, heartbeat(now));
  }
  leavers.clear();
  if (was_leaving_announced) leavers.insert(self_id());
  actions.emplace_back(action::InstallView{view, value});
  if (is_parked) actions.emplace_back(action::Unparked{});
  is_parked = false;
  stuck_since.reset();
  was_cut_off = false;
  healed_at.reset();
  announce(now);
  if (is_leaving) broadcast(Leave{{}, view.id});
  auto const again = gathers.begin_view(electorate.members);
  for (auto const& part : again) broadcast(Contribution{view.id, part.key, part.sequence, part.bytes});
  // With nobody else left no part will arrive and complete them.
  for (auto const& part : again) hold_exchange(part.key);
  for (auto& [from, message] : std::exchange(early, {})) on_message(from, std::move(message), now);
  must_evaluate = true;
}

// --- what a proposer cannot do itself ----------------------------------------------------------------------------

void Membership::Impl::request_fences(Instant now) {
  if (electorate.rule != QuorumRule::certified || !table.may_lead(self_id())) {
    unwanted_since.clear();
    return;
  }
  auto const& suspects = table.suspects();
  MemberSet heard;
  for (auto const member : electorate.members)
    if (!suspects.contains(member)) heard.insert(member);
  auto const clique = without_lost_links(heard, [&](MemberId a, MemberId b) { return table.is_link_lost(a, b); });
  for (auto const member : electorate.members) {
    if (clique.contains(member) || table.certified().contains(member)) {
      unwanted_since.erase(member);
      continue;
    }
    auto const since = unwanted_since.emplace(member, now).first->second;
    if (now - since < std::chrono::duration_cast<Instant::duration>(options.fence_after)) continue;
    actions.emplace_back(action::RequestFence{{view.id, electorate.members.list(), self_id(), member}});
  }
}

void Membership::Impl::park(Instant now) {
  bool const is_waiting_for_certificate =
      electorate.rule == QuorumRule::certified &&
      std::any_of(table.suspects().begin(), table.suspects().end(),
                  [&](MemberId member) { return !table.certified().contains(member); });
  if (!table.is_blocked() && !acceptor.is_frozen() && !is_waiting_for_certificate) {
    stuck_since.reset();
    if (std::exchange(is_parked, false)) actions.emplace_back(action::Unparked{});
    return;
  }
  if (!stuck_since) stuck_since = now;
  auto const stuck = now - *stuck_since;
  if (!is_parked && stuck > std::chrono::duration_cast<Instant::duration>(options.heartbeat_timeout)) {
    is_parked = true;
    std::string const reason = table.is_blocked() ? "those that this member hears, and that hear it, are no quorum"
                                                  : "no quorum has agreed on the next view yet";
    trace("parked", {{"view", number(view.id)}, {"reason", reason}, {"suspects", name_members(table.suspects())}});
    actions.emplace_back(action::Parked{reason});
  }
  if (!is_parked || options.parked_limit.count() == 0 || stuck < options.parked_limit) return;
  Failure parked;
  parked.code = Errc::parked;
  parked.view = view.id;
  parked.failed_members = table.suspects().list();
  parked.where = "view change";
  parked.detail =
      "no quorum for " + text::seconds(stuck) + "; start again from a checkpoint when members can be reached";
  failure = std::move(parked);
  end();
}

bool Membership::Impl::is_everybody_else_gone() const {
  return std::all_of(electorate.members.begin(), electorate.members.end(), [&](MemberId member) {
    return member == self_id() || leavers.contains(member) || table.suspects().contains(member);
  });
}

}  // namespace holdfast::protocol
