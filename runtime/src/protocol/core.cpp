#include "core.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "../text.hpp"

namespace holdfast::protocol {
namespace {

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

/// 32-bit FNV-1a: every member computes the same id for a name without asking anybody.
std::uint32_t hash_name(std::string_view name) {
  std::uint32_t hash = 2'166'136'261U;
  for (char const c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16'777'619U;
  return hash;
}

}  // namespace

Core::Core(View view, int self, Options options)
    : view_(std::move(view)),
      self_(self),
      options_(options),
      ledger_(view_.world_size()),
      exchanges_(view_.world_size(), self),
      detector_(view_.world_size(), options.heartbeat_period, options.heartbeat_timeout),
      has_left_(view_.members.size()),
      reported_(view_.members.size()) {}

void Core::start(Instant now) {
  for (auto& reported : reported_) reported.at = now;
  on_timer(now);
}

// --- network -----------------------------------------------------------------------------------------------------

void Core::on_connected(int rank) {
  detector_.watch(rank);
}

void Core::on_message(int rank, Message message, Instant now) {
  detector_.heard(rank);
  std::visit(Overloaded{[&](Heartbeat const& heartbeat) { receive(rank, heartbeat, now); },
                        [&](Ready const& ready) { receive(rank, ready); },
                        [&](Contribution& contribution) { receive(rank, std::move(contribution)); },
                        [&](ViewFailed& failed) { receive(rank, std::move(failed)); },
                        [&](Leave const& leave) { receive(rank, leave); },
                        [&](auto const&) { fail_protocol_violation(rank, "a handshake message in mid-session"); }},
             message);
}

void Core::receive(int rank, Heartbeat const& heartbeat, Instant now) {
  reported_[static_cast<std::size_t>(rank)] = {heartbeat.progress, now};
}

void Core::receive(int rank, Ready const& ready) {
  if (ready.view == view_.id) count(ready.round, rank, ready.digest, true);
}

void Core::receive(int rank, Contribution&& contribution) {
  if (contribution.view != view_.id) return;
  auto const key = contribution.key;
  switch (exchanges_.receive(rank, key, contribution.sequence, std::move(contribution.bytes))) {
    case ExchangeTable::Counted::complete:
      actions_.emplace_back(ExchangeComplete{key});
      break;
    case ExchangeTable::Counted::out_of_order:
      fail_protocol_violation(rank, "exchange " + std::to_string(contribution.sequence) + " of \"" + key +
                                        "\", which it cannot have reached");
      break;
    case ExchangeTable::Counted::counted:
    case ExchangeTable::Counted::repeated:
      break;
  }
}

void Core::receive(int rank, ViewFailed&& failed) {
  auto& failure = failed.failure;
  if (failure.view != view_.id) return;
  auto const& lost = failure.failed_members;
  bool const is_accused =
      std::find(lost.begin(), lost.end(), view_.members[static_cast<std::size_t>(self_)].id) != lost.end();
  if (failure.code == Errc::member_lost && is_accused) {
    failure.code = Errc::evicted;
    failure.detail = describe_member(rank) + " says that the others lost this member: " + failure.detail;
  }
  fail_view(std::move(failure));
}

void Core::receive(int rank, Leave const& leave) {
  for (auto const& ready : leave.announced) receive(rank, ready);
  has_left_[static_cast<std::size_t>(rank)] = true;
  detector_.unwatch(rank);
  actions_.emplace_back(MemberLeft{rank});
  actions_.emplace_back(Disconnect{rank});
}

void Core::on_connection_lost(int rank, Evidence evidence, std::string const& what, Instant now) {
  detector_.unwatch(rank);
  if (has_left_[static_cast<std::size_t>(rank)] || has_left_[static_cast<std::size_t>(self_)]) return;
  if (evidence == Evidence::protocol_violation) return fail_protocol_violation(rank, what);
  auto const last_seen = "; when last heard it was " + describe_progress(rank, now);
  if (evidence == Evidence::process_ended)
    return fail_member_lost(
        {rank}, "process watch",
        describe_member(rank) + " ended: " + what + last_seen + "; look into its log for the reason");
  fail_member_lost({rank}, "control connection",
                   describe_member(rank) + " cannot be reached: " + what + last_seen +
                       "; look into its log, and at the network between the hosts");
}

void Core::on_timer(Instant now) {
  if (is_frozen() || has_left_[static_cast<std::size_t>(self_)]) return;
  auto const silent = detector_.tick(now);
  if (!silent.empty()) {
    std::vector<std::string> sentences;
    for (int const rank : silent)
      sentences.push_back(describe_member(rank) + " silent for " + text::seconds(detector_.silence(rank)) +
                          ", last heard " + describe_progress(rank, now));
    return fail_member_lost(silent, "heartbeat",
                            text::list(sentences) + "; raise HOLDFAST_HEARTBEAT_TIMEOUT_MS above " +
                                text::seconds(options_.heartbeat_timeout) + " if hosts are merely overloaded");
  }
  auto progress = reported_[static_cast<std::size_t>(self_)].progress;
  progress.since =
      std::chrono::duration_cast<std::chrono::milliseconds>(now - reported_[static_cast<std::size_t>(self_)].at);
  broadcast(Heartbeat{progress});
  actions_.emplace_back(SetTimer{now + std::chrono::duration_cast<Instant::duration>(options_.heartbeat_period)});
}

// --- this member -------------------------------------------------------------------------------------------------

StreamId Core::open_stream(std::string_view name) {
  auto const id = StreamId{hash_name(name)};
  auto const [known, is_new] = stream_names_.emplace(id, name);
  if (!is_new && known->second != name)
    throw Error(Errc::bad_argument, "streams \"" + known->second + "\" and \"" + std::string(name) +
                                        "\" have the same id; rename one of them");
  return id;
}

Outcome<void> Core::hold(RoundId round, Digest digest, std::function<void()> const& publish) {
  if (failure_) return fail(*failure_);
  if (has_left_[static_cast<std::size_t>(self_)]) return fail(own_absence());
  auto const next = ledger_.committed(round.stream) + 1;
  if (round.number != next)
    throw Error(Errc::bad_argument, describe_round(round) + " cannot be held now: the next of its stream is " +
                                        std::to_string(next) + ", rounds end in order");
  if (auto blame = blame_leaver(round)) return fail(std::move(*blame));
  if (publish)
    publish();
  else
    broadcast(Ready{view_.id, round, digest});
  count(round, self_, digest, !publish);
  if (failure_) return fail(*failure_);
  return {};
}

void Core::count_ready(RoundId round, int rank, Digest digest) {
  count(round, rank, digest, false);
}

void Core::count(RoundId round, int rank, Digest digest, bool is_by_message) {
  switch (ledger_.count(round, rank, digest)) {
    case RoundLedger::Counted::committed:
      // A fabric that carries READY polls for it; only rounds over messages need to wake somebody.
      if (is_by_message) actions_.emplace_back(RoundCommitted{round});
      break;
    case RoundLedger::Counted::diverged: {
      auto const first = ledger_.first_of(round);
      Failure failure;
      failure.code = Errc::diverged;
      failure.operation = describe_round(round);
      failure.where = "ready count of rank " + std::to_string(self_);
      failure.detail = "rank " + std::to_string(first.rank) + " holds result " + text::hex(first.digest.high) +
                       text::hex(first.digest.low) + ", rank " + std::to_string(rank) + " holds " +
                       text::hex(digest.high) + text::hex(digest.low) +
                       "; members must run the same program on the same settings, else suspect memory or hardware";
      fail_view(std::move(failure));
      break;
    }
    case RoundLedger::Counted::out_of_order:
      fail_protocol_violation(rank, "READY for " + describe_round(round) + ", which it cannot have reached");
      break;
    case RoundLedger::Counted::counted:
    case RoundLedger::Counted::repeated:
      break;
  }
}

Outcome<void> Core::contribute(std::string const& key, std::span<std::byte const> bytes) {
  if (failure_) return fail(*failure_);
  if (has_left_[static_cast<std::size_t>(self_)]) return fail(own_absence());
  if (auto const sequence = exchanges_.contribute(key, bytes))
    broadcast(Contribution{view_.id, key, *sequence, {bytes.begin(), bytes.end()}});
  return {};
}

void Core::suspect(int rank, std::string_view evidence, Instant now) {
  if (rank == self_ || has_left_[static_cast<std::size_t>(rank)]) return;
  fail_member_lost({rank}, "data plane of rank " + std::to_string(self_),
                   std::string(evidence) + "; the process of " + describe_member(rank) + " still answers and is " +
                       describe_progress(rank, now) + "; raise HOLDFAST_OP_TIMEOUT_MS if steps take that long");
}

void Core::report_progress(Activity activity, RoundId round, Instant now) {
  reported_[static_cast<std::size_t>(self_)] = {{activity, round, {}}, now};
}

void Core::leave() {
  auto const self = static_cast<std::size_t>(self_);
  if (has_left_[self]) return;
  has_left_[self] = true;
  Leave message;
  for (auto const& announced : ledger_.announced_by(self_))
    message.announced.push_back({view_.id, announced.round, announced.digest});
  broadcast(message);
  for (int rank = 0; rank < view_.world_size(); ++rank)
    if (rank != self_) actions_.emplace_back(Disconnect{rank});
}

// --- state -------------------------------------------------------------------------------------------------------

Outcome<bool> Core::is_committed(RoundId round) const {
  if (ledger_.is_committed(round)) return true;
  if (failure_) return fail(*failure_);
  if (auto blame = blame_leaver(round)) return fail(std::move(*blame));
  return false;
}

Outcome<std::optional<std::vector<std::vector<std::byte>>>> Core::take_exchange(std::string const& key) {
  if (auto parts = exchanges_.take(key)) return parts;
  if (failure_) return fail(*failure_);
  for (int rank = 0; rank < view_.world_size(); ++rank) {
    auto const at = static_cast<std::size_t>(rank);
    if (!has_left_[at] || exchanges_.has_part(key, rank)) continue;
    Failure failure;
    failure.code = Errc::member_left;
    failure.view = view_.id;
    failure.failed_members = {view_.members[at].id};
    failure.detail = describe_member(rank) + " left before it gave its part; every member must make the same calls";
    return fail(std::move(failure));
  }
  return std::optional<std::vector<std::vector<std::byte>>>{};
}

Failure Core::own_absence() const {
  Failure failure;
  failure.code = Errc::member_left;
  failure.view = view_.id;
  failure.failed_members = {view_.members[static_cast<std::size_t>(self_)].id};
  failure.detail = "this member itself has left the group; leave() is its last call";
  return failure;
}

std::optional<Failure> Core::blame_leaver(RoundId round) const {
  for (int rank = 0; rank < view_.world_size(); ++rank) {
    auto const at = static_cast<std::size_t>(rank);
    if (!has_left_[at] || ledger_.has_ready(round, rank)) continue;
    Failure failure;
    failure.code = Errc::member_left;
    failure.view = view_.id;
    failure.failed_members = {view_.members[at].id};
    failure.operation = describe_round(round);
    failure.detail = describe_member(rank) + " left before this round; every member must run the same number of rounds";
    return failure;
  }
  return std::nullopt;
}

std::string Core::describe_member(int rank) const {
  auto const& member = view_.members[static_cast<std::size_t>(rank)];
  return "rank " + std::to_string(rank) + " (" + member.host + ", pid " + std::to_string(member.pid) + ")";
}

std::string Core::describe_round(RoundId round) const {
  auto const known = stream_names_.find(round.stream);
  return "round " + std::to_string(round.number) + " on stream " +
         (known == stream_names_.end() ? "#" + std::to_string(static_cast<std::uint32_t>(round.stream))
                                       : known->second);
}

std::string Core::describe_missing_parts(std::string const& key, Instant now) const {
  std::vector<std::string> missing;
  for (int rank = 0; rank < view_.world_size(); ++rank)
    if (!exchanges_.has_part(key, rank)) missing.push_back(describe_member(rank) + ", " + describe_progress(rank, now));
  return text::list(missing);
}

std::string Core::describe_progress(int rank, Instant now) const {
  auto const& [progress, at] = reported_[static_cast<std::size_t>(rank)];
  auto const since = text::seconds(progress.since + (now - at));
  switch (progress.activity) {
    case Activity::starting:
      return "before its first round for " + since;
    case Activity::computing:
      return "computing, not in a collective, for " + since;
    case Activity::in_round:
      return "in " + describe_round(progress.round) + " for " + since;
  }
  return "in an unknown state";
}

void Core::take_actions(std::vector<Action>& out) {
  std::move(actions_.begin(), actions_.end(), std::back_inserter(out));
  actions_.clear();
}

// --- failing -----------------------------------------------------------------------------------------------------

void Core::broadcast(Message const& message) {
  for (int rank = 0; rank < view_.world_size(); ++rank)
    if (rank != self_ && !has_left_[static_cast<std::size_t>(rank)]) actions_.emplace_back(Send{rank, message});
}

void Core::fail_view(Failure failure) {
  if (failure_) return;  // The first failure wins, here and at everyone who hears of it from us.
  failure.view = view_.id;
  failure_ = failure;
  // Told to the accused as well: if it only slept, it learns that the others went on. One that learnt it so forwards
  // the others' words, not its own eviction.
  if (failure.code != Errc::evicted) broadcast(ViewFailed{std::move(failure)});
  actions_.emplace_back(ViewHasFailed{});
}

void Core::fail_member_lost(std::vector<int> const& ranks, std::string where, std::string detail) {
  Failure failure;
  failure.code = Errc::member_lost;
  for (int const rank : ranks) failure.failed_members.push_back(view_.members[static_cast<std::size_t>(rank)].id);
  failure.where = std::move(where);
  failure.detail = std::move(detail);
  fail_view(std::move(failure));
}

void Core::fail_protocol_violation(int rank, std::string const& what) {
  Failure failure;
  failure.code = Errc::corrupt_message;
  failure.failed_members = {view_.members[static_cast<std::size_t>(rank)].id};
  failure.where = "control connection of rank " + std::to_string(self_);
  failure.detail = describe_member(rank) + " sent " + what;
  fail_view(std::move(failure));
}

}  // namespace holdfast::protocol
