#include <algorithm>
#include <type_traits>
#include <utility>

#include "membership_impl.hpp"

namespace holdfast::protocol {
namespace {

/// Messages of the next view that came before its decision; what overflows is asked for again.
constexpr std::size_t kMaxEarly = 4'096;

}  // namespace

void Membership::Impl::on_message(MemberId from, Message&& message, Instant now) {
  if (mode == Mode::ended || from == self_id()) return;
  std::visit(
      [&](auto& m) {
        using Kind = std::decay_t<decltype(m)>;
        // Handshakes are over before; requests go to the supervisor.
        if constexpr (!std::is_same_v<Kind, Hello> && !std::is_same_v<Kind, Welcome> &&
                      !std::is_same_v<Kind, Refused> && !std::is_same_v<Kind, FenceRequest> &&
                      !std::is_same_v<Kind, Knock> && !std::is_same_v<Kind, Seats> && !std::is_same_v<Kind, Ask> &&
                      !std::is_same_v<Kind, Notice> && !std::is_same_v<Kind, Reachable>)
          receive(from, std::move(m), now);
      },
      message);
}

bool Membership::Impl::is_current(MemberId from, ViewId of) {
  if (mode == Mode::excluded && of < value.number) send(from, Decided{value});
  if (mode != Mode::member) return false;
  if (of < view.id) send(from, Decided{value});  // The old view's acceptor never votes again.
  if (of != view.id || !electorate.members.contains(from)) return false;
  table.heard(from);
  return true;
}

bool Membership::Impl::is_early(MemberId from, ViewId of, Message&& message) {
  auto const next = ViewId{static_cast<std::uint64_t>(value.number) + 1};
  if (of != next || mode == Mode::excluded) return false;
  if (early.size() < kMaxEarly) early.emplace_back(from, std::move(message));
  return true;
}

void Membership::Impl::receive(MemberId from, Heartbeat const& heartbeat, Instant now) {
  if (mode == Mode::excluded && heartbeat.view >= value.number) {
    installed.insert(from);
    return;
  }
  if (mode == Mode::learner) return;
  if (!is_current(from, heartbeat.view)) {
    // Somebody is ahead: our own heartbeat makes it answer with the decision.
    if (mode == Mode::member && heartbeat.view > view.id) send(from, this->heartbeat(now));
    return;
  }
  reported[from] = {heartbeat.progress, now};
  if (table.note(from, heartbeat) && heartbeat.is_leaving) leavers.insert(from);
  for (auto const member : heartbeat.certified)
    if (member != self_id()) (void)table.certify(member, "seen by " + describe_member(from));
  for (auto const& ready : heartbeat.open) {
    if (ready.view != view.id) continue;
    count(ready.round, from, ready.digest, true);
    // It waits for READYs: perhaps ours was lost.
    if (failure || mode != Mode::member) return;
    auto const stream = streams.find(ready.round.stream);
    if (stream == streams.end() || !ledger.has_ready(ready.round, rank)) continue;
    bool const is_held = stream->second.held == ready.round.number;
    // A late heartbeat may ask for a round before the last one: whoever sent it has gone on, and we keep one digest.
    if (!is_held && ledger.committed(ready.round.stream) != ready.round.number) continue;
    send(from, Ready{view.id, ready.round, is_held ? stream->second.held_digest : stream->second.committed_digest});
  }
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Ready const& ready, Instant now) {
  if (is_early(from, ready.view, ready) || !is_current(from, ready.view)) return;
  count(ready.round, from, ready.digest, true);
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Contribution&& contribution, Instant now) {
  if (contribution.view > value.number) {
    auto const of = contribution.view;
    (void)is_early(from, of, std::move(contribution));
    return;
  }
  if (!is_current(from, contribution.view)) return;
  auto const key = contribution.key;
  bool const asks = contribution.asks;
  auto const number = contribution.sequence;
  if (gathers.receive(from, key, number, std::move(contribution.bytes)) == GatherTable::Counted::out_of_order)
    return fail_protocol_violation(from, "exchange " + std::to_string(number) + " of \"" +
                                             key.substr(std::min<std::size_t>(1, key.size())) +
                                             "\", which it cannot have reached");
  if (asks)
    if (auto const own = gathers.own_part(key, number)) send(from, Contribution{view.id, key, number, own->bytes});
  hold_exchange(key);
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, ViewFailed&& failed, Instant now) {
  auto of_view = failed.failure;
  if (!is_current(from, of_view.view)) return;
  auto const& lost = of_view.failed_members;
  if (of_view.code == Errc::member_lost && std::find(lost.begin(), lost.end(), self_id()) != lost.end()) {
    of_view.code = Errc::evicted;
    of_view.detail = describe_member(from) + " says that the others lost this member: " + of_view.detail;
  }
  (void)now;
  fail_view(std::move(of_view));
}

void Membership::Impl::receive(MemberId from, Leave const& leave, Instant now) {
  if (is_early(from, leave.view, leave) || !is_current(from, leave.view)) return;
  for (auto const& ready : leave.announced)
    if (ready.view == view.id) count(ready.round, from, ready.digest, true);
  if (!leavers.insert(from)) return;
  if (!is_shrinking()) {
    actions.emplace_back(action::MemberLeft{from});
    actions.emplace_back(action::Disconnect{from});
    return;
  }
  leaving_since = now;
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Prepare&& prepare, Instant now) {
  auto const of = prepare.current.number;
  // A ballot brings the decision of the view that it wants to follow.
  if (mode == Mode::learner || (mode == Mode::member && of > view.id)) on_decided(std::move(prepare.current), now);
  if (!is_current(from, of)) return;
  auto& wanted = prepares[from];
  wanted = std::max(wanted, prepare.ballot);
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Promise&& promise, Instant now) {
  if (!is_current(from, promise.view)) return;
  proposer.on_promise(from, std::move(promise));
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Preempted const& preempted, Instant now) {
  if (!is_current(from, preempted.view)) return;
  highest_seen = std::max(highest_seen, preempted.promised);
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Propose&& propose, Instant now) {
  if (!is_current(from, propose.view)) return;
  if (!acceptor.is_frozen()) freeze();
  if (acceptor.accept(propose.ballot, propose.value))
    send(from, Accepted{view.id, propose.ballot});
  else
    send(from, Preempted{view.id, propose.ballot, acceptor.promised()});
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Accepted const& accepted, Instant now) {
  if (!is_current(from, accepted.view)) return;
  if (proposer.phase() == Proposer::Phase::proposing && accepted.ballot == proposer.ballot())
    proposer.on_accepted(from);
  evaluate(now);
}

void Membership::Impl::receive(MemberId from, Decided&& decided, Instant now) {
  bool const is_old = mode == Mode::member && decided.value.number <= view.id;
  // One that was left out asks whether we know: any heartbeat tells it.
  if (is_old && !electorate.members.contains(from)) send(from, heartbeat(now));
  if (!is_old) on_decided(std::move(decided.value), now);
}

void Membership::Impl::receive(MemberId from, LearnerState&& state, Instant now) {
  if (mode == Mode::excluded) return send(from, Decided{value});
  if (mode != Mode::member || !is_shrinking()) return;
  auto const seat = state.seat;
  send(from, Decided{value});
  if (seat.member.id != from || seat.member.id <= value.highest_named) return;
  if (learners.note(state, now)) {
    trace("learner", {{"member", static_cast<std::int64_t>(from)}, {"host", seat.member.host}});
    actions.emplace_back(action::LearnerAppeared{seat});
  }
  evaluate(now);
}

void Membership::Impl::receive(MemberId, Certificate const& certificate, Instant now) {
  on_connection_lost(certificate.member, Evidence::process_ended, "certified by the supervisor", now);
}

}  // namespace holdfast::protocol
