#include "membership.hpp"

#include <algorithm>
#include <utility>

#include "../text.hpp"
#include "membership_impl.hpp"

namespace holdfast::protocol {
namespace {

/// How long an accusation by the data plane stands, in heartbeat timeouts.
constexpr int kAccusation = 3;
constexpr std::size_t kMaxEnded = 65'536;

Seat seat_of(Value const& value, MemberId member) {
  for (auto const& seat : value.seats)
    if (seat.member.id == member) return seat;
  Seat unknown;
  unknown.member.id = member;
  return unknown;
}

}  // namespace

// --- the handle --------------------------------------------------------------------------------------------------

Membership::Membership(Value current, MemberId self, MembershipOptions options)
    : impl_(std::make_unique<Impl>(current, seat_of(current, self), Impl::Mode::member, options)) {}
Membership::Membership(Seat self, MembershipOptions options)
    : impl_(std::make_unique<Impl>(Value{}, std::move(self), Impl::Mode::learner, options)) {}
Membership::Membership(Membership&& spent, Seat self, MembershipOptions options)
    : Membership(std::move(self), options) {
  impl_->states = std::move(spent.impl_->states);
  impl_->stream_names = std::move(spent.impl_->stream_names);
  impl_->is_ready = spent.impl_->is_ready;
}
Membership::~Membership() = default;
Membership::Membership(Membership&&) noexcept = default;
Membership& Membership::operator=(Membership&&) noexcept = default;

void Membership::start(Instant now) {
  impl_->start(now);
}
void Membership::on_connected(MemberId member, Instant now) {
  impl_->on_connected(member, now);
}
void Membership::on_heard(MemberId member) {
  impl_->table.heard(member);
}
void Membership::on_message(MemberId from, Message message, Instant now) {
  impl_->on_message(from, std::move(message), now);
}
void Membership::on_connection_lost(MemberId member, Evidence evidence, std::string const& what, Instant now) {
  impl_->on_connection_lost(member, evidence, what, now);
}
void Membership::on_timer(Instant now) {
  impl_->on_timer(now);
}
StreamId Membership::open_stream(std::string_view name) {
  return impl_->open_stream(name);
}
Outcome<void> Membership::hold(RoundId round, Digest digest, std::function<void()> const& publish) {
  return impl_->hold(round, digest, publish);
}
void Membership::count_ready(ViewId view, RoundId round, MemberId member, Digest digest) {
  if (view == impl_->view.id) impl_->count(round, member, digest, false);
}
Outcome<void> Membership::contribute(std::string const& key, std::span<std::byte const> bytes, bool only_now) {
  return impl_->contribute(key, bytes, only_now);
}
void Membership::report_progress(Activity activity, RoundId round, Instant now) {
  impl_->report_progress(activity, round, now);
}
void Membership::suspect(MemberId member, std::string_view evidence, Instant now) {
  impl_->suspect(member, evidence, now);
}
void Membership::exchange_overdue(std::string_view what, Instant now) {
  impl_->exchange_overdue(what, now);
}
void Membership::note_state(StreamPosition position, Instant now) {
  impl_->note_state(position, now);
}
bool Membership::is_state_wanted(Instant now) const {
  return impl_->is_state_wanted(now);
}
void Membership::hold_back() {
  impl_->is_ready = false;
  // A decision that was taken on what it said before does not make it a member.
  impl_->states = {};
}
void Membership::seek_entry(Instant now) {
  impl_->seek_entry(now);
}
void Membership::leave(Instant now) {
  impl_->leave(now);
}
void Membership::fail_all(Failure failure) {
  impl_->fail_view(std::move(failure));
}
View const& Membership::view() const {
  return impl_->view;
}
Value const& Membership::value() const {
  return impl_->value;
}
MemberId Membership::self() const {
  return impl_->self_id();
}
Seat const& Membership::seat() const {
  return impl_->self;
}
bool Membership::is_learner() const {
  return impl_->mode == Impl::Mode::learner;
}
bool Membership::is_frozen() const {
  return impl_->mode != Impl::Mode::member || impl_->acceptor.is_frozen();
}
bool Membership::is_parked() const {
  return impl_->is_parked;
}
std::optional<Failure> const& Membership::failure() const {
  return impl_->failure;
}
Outcome<bool> Membership::is_committed(RoundId round) const {
  return impl_->is_committed(round);
}
std::uint64_t Membership::committed(StreamId stream) const {
  return impl_->ledger.committed(stream);
}
std::uint64_t Membership::rounds_committed() const {
  return impl_->rounds_committed;
}
Outcome<std::optional<std::vector<std::vector<std::byte>>>> Membership::take_exchange(std::string const& key,
                                                                                      bool only_now) {
  return impl_->take_exchange(GatherTable::name_of(key, only_now));
}
std::string Membership::describe_missing_parts(std::string const& key, Instant now, bool only_now) const {
  std::vector<std::string> missing;
  for (auto const member : impl_->gathers.missing(GatherTable::name_of(key, only_now)))
    missing.push_back(impl_->describe_member(member) + ", " + impl_->describe_progress(member, now));
  return text::list(missing);
}
std::string Membership::describe_progress(MemberId member, Instant now) const {
  return impl_->describe_progress(member, now);
}
std::string Membership::describe_member(MemberId member) const {
  return impl_->describe_member(member);
}
std::string Membership::describe_round(RoundId round) const {
  return impl_->describe_round(round);
}
bool Membership::has_actions() const {
  return !impl_->actions.empty();
}
void Membership::take_actions(std::vector<action::Any>& out) {
  std::move(impl_->actions.begin(), impl_->actions.end(), std::back_inserter(out));
  impl_->actions.clear();
}

// --- life --------------------------------------------------------------------------------------------------------

Membership::Impl::Impl(Value current, Seat seat, Mode first_mode, MembershipOptions given)
    : options(given),
      self(std::move(seat)),
      mode(first_mode),
      table(self.member.id, given.heartbeat_period, given.heartbeat_timeout),
      gathers(self.member.id, [this](StreamId stream) { return ledger.committed(stream); }),
      random_state(given.seed + static_cast<std::uint64_t>(self.member.id)) {
  value = std::move(current);
  view = value.view();
  if (mode != Mode::member) return;
  rank = view.rank_of(self_id()).value_or(0);
  electorate = electorate_of(value);
  table.begin_view(value.number, electorate);
  ledger = RoundLedger(view.world_size());
  (void)gathers.begin_view(electorate.members);
}

void Membership::Impl::start(Instant now) {
  for (auto const& seat : value.seats) {
    reported[seat.member.id].at = now;
    if (mode == Mode::member && seat.member.id != self_id()) actions.emplace_back(action::Connect{seat});
  }
  reported[self_id()].at = now;
  on_timer(now);
}

void Membership::Impl::on_timer(Instant now) {
  if (mode == Mode::ended) return;
  actions.emplace_back(action::SetTimer{now + periods(1)});
  switch (mode) {
    case Mode::member:
      table.tick(now);
      note_pace();
      repeat_what_is_open();
      announce(now);
      for (auto const id : learners.expire(
               now, periods(1) * 2 + 2 * std::chrono::duration_cast<Instant::duration>(options.heartbeat_timeout))) {
        learner_retry.erase(id);
        actions.emplace_back(action::LearnerGone{id});
      }
      for (auto at = departed.begin(); at != departed.end();) {
        if (now < at->second) {
          ++at;
          continue;
        }
        actions.emplace_back(action::Disconnect{at->first});
        at = departed.erase(at);
      }
      evaluate(now);
      prepares.clear();  // Whoever still wants an answer asks again.
      break;
    case Mode::learner:
      announce_learner();
      break;
    case Mode::excluded: {
      bool const is_known = std::all_of(electorate.members.begin(), electorate.members.end(),
                                        [&](MemberId member) { return installed.contains(member); });
      if (is_known || now >= excluded_until) return end();
      for (auto const member : electorate.members)
        if (!installed.contains(member)) send(member, Decided{value});
      break;
    }
    case Mode::ended:
      break;
  }
}

void Membership::Impl::note_pace() {
  for (auto& [id, stream] : streams) {
    auto const committed = ledger.committed(id);
    stream.recent = committed - stream.committed_at_tick;
    stream.committed_at_tick = committed;
  }
}

void Membership::Impl::end() {
  if (mode == Mode::ended) return;
  mode = Mode::ended;
  actions.emplace_back(action::Ended{});
}

void Membership::Impl::on_connected(MemberId member, Instant now) {
  if (mode == Mode::learner) {
    contacts.insert(member);
    return announce_learner();
  }
  if (mode == Mode::member && electorate.members.contains(member)) send(member, heartbeat(now));
}

void Membership::Impl::on_connection_lost(MemberId member, Evidence evidence, std::string const& what, Instant now) {
  if (evidence == Evidence::process_ended && ended_processes.size() < kMaxEnded) ended_processes.emplace(member, what);
  if (mode == Mode::learner) {
    contacts.erase(member);
    return;
  }
  if (mode == Mode::excluded) {
    if (evidence == Evidence::process_ended) installed.insert(member);  // Nobody is left to be told.
    return;
  }
  if (mode == Mode::member && learners.forget(member)) {
    actions.emplace_back(action::LearnerGone{member});
    return evaluate(now);  // A ballot may be waiting for it.
  }
  if (mode != Mode::member || !electorate.members.contains(member) || member == self_id()) return;
  if (!is_shrinking() && (leavers.contains(member) || is_leaving)) return;
  if (!is_shrinking() && evidence == Evidence::protocol_violation) return fail_protocol_violation(member, what);
  if (evidence == Evidence::process_ended)
    (void)table.certify(member, what);
  else
    table.broken(member, what);
  evaluate(now);
}

void Membership::Impl::suspect(MemberId member, std::string_view evidence, Instant now) {
  if (mode != Mode::member || member == self_id()) return;
  auto const patience = std::chrono::duration_cast<Instant::duration>(options.heartbeat_timeout) * kAccusation;
  table.accuse(member, std::string(evidence), now + patience);
  evaluate(now);
}

void Membership::Impl::exchange_overdue(std::string_view what, Instant now) {
  if (mode != Mode::member || !is_shrinking()) return;
  trace("exchange_overdue", {{"view", static_cast<std::int64_t>(view.id)}, {"detail", std::string(what)}});
  is_overdue = true;
  evaluate(now);
}

void Membership::Impl::note_state(StreamPosition const& position, Instant now) {
  states.note(position);
  if (mode == Mode::learner) announce_learner();
  if (mode == Mode::member) evaluate(now);
}

void Membership::Impl::seek_entry(Instant) {
  if (mode != Mode::learner || std::exchange(is_ready, true)) return;
  announce_learner();
}

void Membership::Impl::report_progress(Activity activity, RoundId round, Instant now) {
  reported[self_id()] = {{activity, round, {}}, now};
}

void Membership::Impl::leave(Instant now) {
  if (is_leaving || mode == Mode::ended) return;
  is_leaving = true;
  leaving_since = now;
  if (mode == Mode::excluded) return;
  if (mode == Mode::learner) {
    for (auto const& seat : value.seats) actions.emplace_back(action::Disconnect{seat.member.id});
    return end();
  }
  if (failure) return end();
  broadcast(Leave{announced(), view.id});
  if (!is_shrinking()) {
    for (auto const member : electorate.members)
      if (member != self_id()) actions.emplace_back(action::Disconnect{member});
    return end();
  }
  leavers.insert(self_id());
  evaluate(now);
}

// --- failing -----------------------------------------------------------------------------------------------------

void Membership::Impl::fail_view(Failure given) {
  if (failure || mode != Mode::member) return;  // The first failure wins, here and at everyone who hears of it from us.
  given.view = view.id;
  failure = given;
  // Told to the accused as well: if it only slept, it learns that the others went on. One that learnt it so forwards
  // the others' words, not its own eviction.
  if (given.code != Errc::evicted) broadcast(ViewFailed{std::move(given)});
  end();
}

void Membership::Impl::fail_suspects() {
  Failure lost;
  lost.code = Errc::member_lost;
  std::vector<std::string> sentences;
  for (auto const member : table.suspects()) {
    lost.failed_members.push_back(member);
    sentences.push_back(describe_member(member) + " " + table.why(member) + "; when last heard it was " +
                        describe_progress(member, reported[self_id()].at));
  }
  lost.where = "failure detector of rank " + std::to_string(rank);
  lost.detail = text::list(sentences) + "; look into its log, or raise HOLDFAST_HEARTBEAT_TIMEOUT_MS above " +
                text::seconds(options.heartbeat_timeout) + " if hosts are merely overloaded";
  fail_view(std::move(lost));
}

void Membership::Impl::fail_protocol_violation(MemberId member, std::string const& what) {
  Failure violation;
  violation.code = Errc::corrupt_message;
  violation.failed_members = {member};
  violation.where = "control connection of rank " + std::to_string(rank);
  violation.detail = describe_member(member) + " sent " + what;
  fail_view(std::move(violation));
}

// --- speaking ----------------------------------------------------------------------------------------------------

Heartbeat Membership::Impl::heartbeat(Instant now) const {
  Heartbeat beat;
  auto const own = reported.find(self_id());
  if (own != reported.end()) {
    beat.progress = own->second.progress;
    beat.progress.since = std::chrono::duration_cast<std::chrono::milliseconds>(now - own->second.at);
  }
  beat.view = view.id;
  beat.sequence = sequence + 1;
  beat.suspects = table.suspects();
  beat.certified = table.certified();
  beat.is_blocked = table.is_blocked();
  beat.is_leaving = is_leaving;
  beat.promised = acceptor.promised();
  return beat;
}

void Membership::Impl::announce(Instant now) {
  said = heartbeat(now);
  ++sequence;
  for (auto& [id, stream] : streams) {
    bool const is_open = stream.held > ledger.committed(id);
    if (is_open && stream.was_open) said.open.push_back({view.id, {id, stream.held}, stream.held_digest});
    stream.was_open = is_open;
  }
  broadcast(said);
}

void Membership::Impl::announce_if_changed(Instant now) {
  auto const beat = heartbeat(now);
  if (beat.view == said.view && beat.suspects == said.suspects && beat.certified == said.certified &&
      beat.is_blocked == said.is_blocked && beat.is_leaving == said.is_leaving && beat.promised == said.promised)
    return;
  said = beat;
  ++sequence;
  broadcast(said);
}

void Membership::Impl::announce_learner() {
  LearnerState const state{self, states.newest(), is_ready};
  for (auto const member : contacts) send(member, state);
  for (auto const& seat : value.seats)
    if (!contacts.contains(seat.member.id)) send(seat.member.id, state);
}

void Membership::Impl::trace(std::string event, EventLog::Fields fields) {
  actions.emplace_back(action::Trace{std::move(event), std::move(fields)});
}

// --- words -------------------------------------------------------------------------------------------------------

std::string Membership::Impl::describe_member(MemberId member) const {
  auto const at = view.rank_of(member);
  if (!at) return "member " + std::to_string(static_cast<std::uint64_t>(member));
  auto const& known = view.members[static_cast<std::size_t>(*at)];
  return "rank " + std::to_string(*at) + " (" + known.host + ", pid " + std::to_string(known.pid) + ")";
}

std::string Membership::Impl::describe_round(RoundId round) const {
  auto const known = stream_names.find(round.stream);
  return "round " + std::to_string(round.number) + " on stream " +
         (known == stream_names.end() ? "#" + std::to_string(static_cast<std::uint32_t>(round.stream)) : known->second);
}

std::string Membership::Impl::describe_progress(MemberId member, Instant now) const {
  auto const found = reported.find(member);
  if (found == reported.end()) return "not heard of yet";
  auto const since = text::seconds(found->second.progress.since + (now - found->second.at));
  switch (found->second.progress.activity) {
    case Activity::starting:
      return "before its first round for " + since;
    case Activity::computing:
      return "computing, not in a collective, for " + since;
    case Activity::in_round:
      return "in " + describe_round(found->second.progress.round) + " for " + since;
  }
  return "in an unknown state";
}

Failure Membership::Impl::own_absence() const {
  Failure absence;
  absence.code = Errc::member_left;
  absence.view = view.id;
  absence.failed_members = {self_id()};
  absence.detail = "this member itself has left the group; leave() is its last call";
  return absence;
}

std::uint64_t Membership::Impl::random() {
  random_state += 0x9E37'79B9'7F4A'7C15U;
  auto z = random_state;
  z = (z ^ (z >> 30U)) * 0xBF58'476D'1CE4'E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D0'49BB'1331'11EBU;
  return z ^ (z >> 31U);
}

}  // namespace holdfast::protocol
