#include <algorithm>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "../text.hpp"
#include "membership_impl.hpp"

namespace holdfast::protocol {

StreamId Membership::Impl::open_stream(std::string_view name) {
  // 32-bit FNV-1a: every member computes the same id for a name without asking anybody.
  std::uint32_t hash = 2'166'136'261U;
  for (char const c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16'777'619U;
  auto const id = StreamId{hash & ~kExchangeBit};
  auto const [known, is_new] = stream_names.emplace(id, name);
  if (!is_new && known->second != name)
    throw Error(Errc::bad_argument, "streams \"" + known->second + "\" and \"" + std::string(name) +
                                        "\" have the same id; rename one of them");
  return id;
}

Outcome<void> Membership::Impl::hold(RoundId round, Digest digest, std::function<void()> const& publish) {
  if (failure) return fail(*failure);
  if (is_leaving && (mode != Mode::member || !is_shrinking())) return fail(own_absence());
  if (acceptor.is_frozen() || mode != Mode::member) {
    Failure changing;
    changing.code = Errc::aborted;
    changing.view = view.id;
    changing.operation = describe_round(round);
    changing.detail = "the view is changing; the round is committed or redone when the next one begins";
    return fail(std::move(changing));
  }
  auto const next = ledger.committed(round.stream) + 1;
  if (round.number != next)
    throw Error(Errc::bad_argument, describe_round(round) + " cannot be held now: the next of its stream is " +
                                        std::to_string(next) + ", rounds end in order");
  if (auto blame = blame_leaver(round)) return fail(std::move(*blame));
  auto& stream = streams[round.stream];
  stream.held = round.number;
  stream.held_digest = digest;
  stream.was_open = false;
  if (publish)
    publish();
  else
    broadcast(Ready{view.id, round, digest});
  count(round, self_id(), digest, !publish);
  if (failure) return fail(*failure);
  return {};
}

void Membership::Impl::count(RoundId round, MemberId member, Digest digest, bool is_by_message) {
  auto const at = view.rank_of(member);
  if (!at || mode != Mode::member || failure) return;
  switch (ledger.count(round, *at, digest)) {
    case RoundLedger::Counted::committed:
      // A fabric that carries READY polls for it; only rounds over messages need to wake somebody.
      streams[round.stream].committed_digest = digest;
      committed(round, is_by_message);
      break;
    case RoundLedger::Counted::diverged: {
      auto const first = ledger.first_of(round);
      Failure diverged;
      diverged.code = Errc::diverged;
      diverged.operation = describe_round(round);
      diverged.where = "ready count of rank " + std::to_string(rank);
      diverged.detail = "rank " + std::to_string(first.rank) + " holds result " + text::hex(first.digest.high) +
                        text::hex(first.digest.low) + ", rank " + std::to_string(*at) + " holds " +
                        text::hex(digest.high) + text::hex(digest.low) +
                        "; members must run the same program on the same settings, else suspect memory or hardware";
      fail_view(std::move(diverged));
      break;
    }
    case RoundLedger::Counted::out_of_order:
      fail_protocol_violation(member, "READY for " + describe_round(round) + ", which it cannot have reached");
      break;
    case RoundLedger::Counted::counted:
    case RoundLedger::Counted::repeated:
      break;
  }
}

void Membership::Impl::committed(RoundId round, bool is_news) {
  if (is_exchange(round.stream)) {
    if (auto key = gathers.commit(round.stream)) actions.emplace_back(action::ExchangeComplete{std::move(*key)});
    return;
  }
  ++rounds_committed;
  if (is_news) actions.emplace_back(action::RoundCommitted{round});
}

// --- small all-gathers -------------------------------------------------------------------------------------------

Outcome<void> Membership::Impl::contribute(std::string const& key, std::span<std::byte const> bytes, bool only_now) {
  if (failure) return fail(*failure);
  if (is_leaving || mode == Mode::excluded || mode == Mode::ended) return fail(own_absence());
  if (mode == Mode::learner) return fail(Errc::aborted, "this member is not in a view yet; wait until it has joined");
  auto const name = GatherTable::name_of(key, only_now);
  auto const part = gathers.contribute(name, bytes);
  if (!part) return {};
  broadcast(Contribution{view.id, name, *part, {bytes.begin(), bytes.end()}});
  hold_exchange(name);
  return {};
}

void Membership::Impl::hold_exchange(std::string const& name) {
  if (acceptor.is_frozen() || failure || mode != Mode::member) return;
  auto const digest = gathers.complete(name);
  if (!digest) return;
  RoundId const round{GatherTable::stream_of(name), gathers.open_sequence(name)};
  if (auto const found = streams.find(round.stream); found != streams.end() && found->second.held == round.number)
    return;
  (void)hold(round, *digest, {});
}

Outcome<std::optional<std::vector<std::vector<std::byte>>>> Membership::Impl::take_exchange(std::string const& name) {
  if (auto parts = gathers.take(name)) return parts;
  if (failure) return fail(*failure);
  if (mode != Mode::member) return fail(own_absence());
  for (auto const member : gathers.missing(name)) {
    if (is_shrinking() || !leavers.contains(member)) continue;
    Failure left;
    left.code = Errc::member_left;
    left.view = view.id;
    left.failed_members = {member};
    left.detail = describe_member(member) + " left before it gave its part; every member must make the same calls";
    return fail(std::move(left));
  }
  return std::optional<std::vector<std::vector<std::byte>>>{};
}

void Membership::Impl::repeat_what_is_open() {
  if (proposer.phase() == Proposer::Phase::preparing) {
    for (auto const member : electorate.members)
      if (!proposer.promises().contains(member)) send(member, Prepare{value, proposer.ballot()});
  } else if (proposer.phase() == Proposer::Phase::proposing) {
    for (auto const member : electorate.members)
      if (!proposer.accepted().contains(member)) send(member, Propose{view.id, proposer.ballot(), proposer.value()});
  }
  // Large parts are asked for rarely: else the questions fill the connections on which the answers are.
  constexpr std::uint64_t kAskingPeriods = 20;
  constexpr std::size_t kLarge = 4'096;
  bool const asks_for_all = ++asking_periods % kAskingPeriods == 0;
  for (auto const& part : gathers.incomplete()) {
    if (part.bytes.size() > kLarge && !asks_for_all) continue;
    for (auto const member : part.missing)
      send(member, Contribution{view.id, part.key, part.sequence, part.bytes, true});
  }
}

// --- state -------------------------------------------------------------------------------------------------------

Outcome<bool> Membership::Impl::is_committed(RoundId round) const {
  if (ledger.is_committed(round)) return true;
  if (failure) return fail(*failure);
  if (mode == Mode::excluded || mode == Mode::ended) return fail(own_absence());
  if (auto blame = blame_leaver(round)) return fail(std::move(*blame));
  return false;
}

std::optional<Failure> Membership::Impl::blame_leaver(RoundId round) const {
  if (is_shrinking()) return std::nullopt;  // The next view does the round without it.
  for (auto const member : leavers) {
    if (ledger.has_ready(round, view.rank_of(member).value_or(0))) continue;
    Failure left;
    left.code = Errc::member_left;
    left.view = view.id;
    left.failed_members = {member};
    left.operation = describe_round(round);
    left.detail = describe_member(member) + " left before this round; every member must run the same number of rounds";
    return left;
  }
  return std::nullopt;
}

Report Membership::Impl::report() const {
  Report report;
  for (auto const& [id, stream] : streams) {
    if (is_of_one_view(id)) continue;
    auto const committed = ledger.committed(id);
    bool const is_held = stream.held > committed;
    report.push_back({id, committed, is_held ? stream.held : committed, stream.committed_digest,
                      is_held ? stream.held_digest : stream.committed_digest});
  }
  return report;
}

std::vector<Ready> Membership::Impl::announced() const {
  std::vector<Ready> readies;
  for (auto const& announced : ledger.announced_by(rank))
    readies.push_back({view.id, announced.round, announced.digest});
  return readies;
}

}  // namespace holdfast::protocol
