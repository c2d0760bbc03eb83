#include "pipeline/engine.hpp"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/progress.hpp>

#include "kernels/kernels.hpp"

namespace holdfast::pipeline {

namespace {

using namespace std::chrono_literals;

// Below this nobody is woken for a round's collectives: that takes longer than moving the bytes, and the caller is
// likely to wait for them next. If it does not, the thread finds them at its next look.
constexpr std::size_t kWorthWaking = 64 << 10;
constexpr auto kLookPeriod = 5ms;
constexpr auto kShortLookPeriod = 1ms;
// Looks in vain before the thread sleeps until it is woken.
constexpr int kLooks = 200;
// Bound on one sleep of the thread that drives, should a wake-up be lost; nothing depends on it.
constexpr auto kLongestSleep = 100ms;

std::uint64_t pack(Blocker blocker) {
  return static_cast<std::uint64_t>(blocker.stage) << 32 | static_cast<std::uint32_t>(blocker.rank);
}
Blocker unpack(std::uint64_t packed) {
  return {static_cast<Blocker::Stage>(packed >> 32), static_cast<int>(static_cast<std::uint32_t>(packed))};
}

}  // namespace

Engine::Engine(Group group, Connection connection, Connector connector, ArenaPool& arena)
    : group_(std::move(group)),
      connector_(std::move(connector)),
      arena_(arena),
      connection_(std::make_shared<Connection>(std::move(connection))),
      accuses_(group_.config().on_loss == "shrink") {
  for (std::uint32_t index = 0; index < fabrics::kMaxStreams; ++index)
    streams_.push_back(std::make_unique<StreamState>());
  group_.rounds().set_listener(this, [this] {
    view_has_news_.store(true);
    wake_thread();
  });
  thread_ = std::jthread([this](std::stop_token const& stop) { run(stop); });
}

Engine::~Engine() {
  group_.rounds().set_listener(this, {});
  abort("the communicator was destroyed");
  thread_.request_stop();
  wake_thread();
  thread_.join();
}

std::uint32_t Engine::open_stream(std::string_view name, std::optional<SlowMembers> const& slow) {
  std::lock_guard const lock(queue_mutex_);
  auto const watch = [&](StreamState& stream) {
    if (!slow || std::exchange(stream.has_slow_members, true)) return;
    stream.pace = RoundPace(*slow);
    stream.slow_policy.store(slow->policy, std::memory_order_release);
    if (slow->policy == SlowPolicy::wait) return;
    watches_pace_.store(true);
    thread_is_wanted_ = true;  // it may sleep without an end
    thread_wakes_.notify_one();
  };
  for (std::uint32_t index = 0; index < open_streams_; ++index)
    if (streams_[index]->name == name) {
      watch(*streams_[index]);
      return index;
    }
  if (open_streams_ == fabrics::kMaxStreams)
    throw Error(Errc::bad_argument, "a communicator has at most " + std::to_string(fabrics::kMaxStreams) +
                                        " streams; no room for '" + std::string(name) + "'");
  auto& stream = *streams_[open_streams_];
  stream.name = name;
  // Each communicator counts the rounds of its own streams, whatever they are called.
  auto const number = connector_.number();
  stream.id = group_.rounds().open_stream(number == 0 ? stream.name
                                                      : stream.name + " of communicator " + std::to_string(number));
  watch(stream);
  // One who joins a running job begins after what the others have committed.
  stream.next_round = group_.rounds().committed(stream.id) + 1;
  return open_streams_++;
}

std::shared_ptr<RoundState> Engine::begin(std::uint32_t stream) {
  auto& state = *streams_[stream];
  auto const number = state.next_round++;
  if (state.slow_policy.load(std::memory_order_relaxed) == SlowPolicy::wait)
    return std::make_shared<RoundState>(stream, state.id, number);
  return round_of(stream, number);
}

bool Engine::take_back(RoundState const& round) {
  auto& next = streams_[round.stream_index]->next_round;
  if (next != round.id.number + 1) return false;
  --next;
  return true;
}

void Engine::add(std::shared_ptr<RoundState> const& round, std::shared_ptr<Collective> collective) {
  if (round->added == kMaxCollectivesPerRound)
    throw Error(Errc::bad_argument, "a round holds at most " + std::to_string(kMaxCollectivesPerRound) +
                                        " collectives; use larger buckets or several rounds");
  ++round->added;
  round->waiting_bytes += collective->descriptor().elements * element_bytes(collective->descriptor().dtype);
  bool const is_worth_waking = round->waiting_bytes >= kWorthWaking;
  if (is_worth_waking) round->waiting_bytes = 0;
  push({round, std::move(collective)}, is_worth_waking);
}

void Engine::seal(std::shared_ptr<RoundState> const& round) {
  push({round, nullptr}, false);
}

void Engine::push(Event event, bool is_worth_waking) {
  {
    std::lock_guard const lock(queue_mutex_);
    events_.push_back(std::move(event));
  }
  has_events_.store(true);
  if (is_worth_waking || is_driven_.load() || !is_looking_.exchange(true)) wake_thread();
}

bool Engine::wait_for(RoundState const& round, std::function<bool()> const& is_done, Deadline deadline) {
  if (is_done()) return true;
  group_.report_progress(Activity::in_round, round.id);
  std::int64_t none = 0;
  round.waiting_since.compare_exchange_strong(none, std::chrono::steady_clock::now().time_since_epoch() / 1ns);
  bool const in_time = drive_until(is_done, deadline);
  group_.report_progress(Activity::computing, round.id);
  return in_time;
}

bool Engine::drive_until(std::function<bool()> const& is_done, Deadline deadline) {
  while (!is_done()) {
    if (deadline.has_passed()) return is_done();
    if (std::unique_lock drive(drive_mutex_, std::defer_lock);
        !needs_connection_.load() && drive.try_lock() && fabric().any_thread_may_drive()) {
      is_driven_.store(true);
      while (!is_done() && !deadline.has_passed() && !needs_connection_.load())
        if (!step()) fabric().wait(std::min<std::chrono::nanoseconds>(deadline.remaining(), kLongestSleep));
      is_driven_.store(false);
      bool const leaves_work = has_work();
      drive.unlock();
      if (leaves_work) wake_thread();
      continue;
    }
    // Whoever drives may be about to stop without having seen what this caller waits for.
    wake_thread();
    waiters_.fetch_add(1);
    {
      std::unique_lock lock(queue_mutex_);
      waiters_wake_.wait_until(lock, deadline.instant(), is_done);
    }
    waiters_.fetch_sub(1);
  }
  return true;
}

RuleState Engine::save_rule_state() {
  std::lock_guard const drive(drive_mutex_);
  RuleState state;
  for (std::uint32_t index = 0; index < open_streams_; ++index)
    for (auto const& [index_in_round, center] : streams_[index]->centers)
      state.centers[{streams_[index]->name, index_in_round}] = center;
  return state;
}

void Engine::load_rule_state(RuleState state) {
  std::vector<std::pair<std::uint32_t, RuleState::Place>> places;
  for (auto const& [place, center] : state.centers) places.emplace_back(open_stream(place.stream), place);
  std::lock_guard const drive(drive_mutex_);
  for (auto const& stream : streams_) stream->centers.clear();
  for (auto const& [stream, place] : places)
    streams_[stream]->centers[place.index_in_round] = std::move(state.centers[place]);
}

void Engine::abort(std::string_view reason) {
  {
    std::lock_guard const lock(queue_mutex_);
    if (!abort_reason_) {
      abort_reason_ = Failure{};
      abort_reason_->code = Errc::aborted;
      abort_reason_->view = view().id;
      abort_reason_->where = "communicator";
      abort_reason_->detail = reason;
    }
  }
  view_has_news_.store(true);
  connection()->fabric->abort();
  wake_thread();
}

std::shared_ptr<Connection const> Engine::connection() const {
  std::lock_guard const lock(queue_mutex_);
  return connection_;
}

std::uint64_t Engine::sent_bytes() const {
  std::lock_guard const lock(queue_mutex_);
  return bytes_of_old_fabrics_ + fabric().sent_bytes();
}

Failure Engine::pending(RoundState const& round) const {
  auto const now = connection();
  Failure failure;
  failure.code = Errc::pending;
  failure.view = now->view.id;
  failure.operation = operation(round);
  failure.elapsed = std::chrono::steady_clock::now() - round.started;
  failure.where = now->fabric->name();
  if (needs_connection_.load()) {
    failure.detail = "the deadline passed while the members of the new view connect; call again to go on waiting";
    return failure;
  }
  auto const [stage, rank] = unpack(round.blocker.load(std::memory_order_relaxed));
  if (rank < 0 || rank >= now->world_size()) {
    failure.detail = "the deadline passed; call again to go on waiting, or leave the group";
    return failure;
  }
  auto const& member = now->view.members[static_cast<std::size_t>(rank)];
  auto const what = [stage = stage] {
    switch (stage) {
      case Blocker::Stage::announcement:
        return "to take part in this collective";
      case Blocker::Stage::row:
        return "to send its contribution";
      case Blocker::Stage::statistics:
        return "to finish reading its shard, or to end its round";
      case Blocker::Stage::result:
        return "to send its shard of the result";
      case Blocker::Stage::ready:
        return "to end its round";
      case Blocker::Stage::nothing:
        break;
    }
    return "";
  }();
  failure.failed_members = {member.id};
  failure.detail = "the deadline passed waiting for rank " + std::to_string(rank) + " (" + member.host + ", pid " +
                   std::to_string(member.pid) + ") " + what +
                   "; it is alive but late: call again to go on waiting, or raise HOLDFAST_OP_TIMEOUT_MS";
  return failure;
}

void Engine::run(std::stop_token stop) {
  int looks_left = 0;
  while (!stop.stop_requested()) {
    bool is_woken = false;
    {
      std::unique_lock lock(queue_mutex_);
      auto const is_wanted = [&] { return thread_is_wanted_; };
      bool const looks = is_looking_.load() || watches_pace_.load();
      auto const period = watches_closely_.load() ? kShortLookPeriod : kLookPeriod;
      is_woken =
          looks ? thread_wakes_.wait_for(lock, stop, period, is_wanted) : thread_wakes_.wait(lock, stop, is_wanted);
      thread_is_wanted_ = false;
    }
    bool const watches_pace = watches_pace_.load();
    if (is_woken || has_events_.load() || watches_pace) {
      looks_left = kLooks;
    } else if (--looks_left <= 0) {
      is_looking_.store(false);
      if (has_events_.load()) is_looking_.store(true);  // pushed by one who still saw this thread looking
      continue;
    }
    std::unique_lock drive(drive_mutex_, std::defer_lock);
    if (is_woken) {
      drive.lock();
    } else if ((!has_events_.load() && !watches_pace) || !drive.try_lock()) {
      continue;  // whoever drives takes them up
    }
    is_driven_.store(true);
    step();
    while (has_work() && !stop.stop_requested()) {
      if (needs_connection_.load()) reconnect(stop);
      if (!step()) fabric().wait(kLongestSleep);
    }
    is_driven_.store(false);
  }
  // Aborted by now. What is still on its way out gets a moment, since its memory goes away with the fabric.
  std::lock_guard const drive(drive_mutex_);
  view_has_news_.store(true);
  auto const deadline = Deadline::after(1s);
  do {
    if (!step() && has_work()) fabric().wait(10ms);
  } while (has_work() && !deadline.has_passed());
}

bool Engine::step() {
  bool happened = fabric().progress();
  bool const has_news = view_has_news_.exchange(false);
  if (has_news && group_.view().id != view().id && !group_.is_newcomer()) needs_connection_.store(true);
  if (needs_connection_.load() && !has_failed_.load() && !group_.failure() && !is_aborted()) {
    // Nothing of the old view goes on; only the own thread may wait for the members of the new one.
    finish_committed();
    wake_thread();
    return true;
  }
  if (has_events_.load(std::memory_order_acquire)) happened |= take_events();
  for (auto const& stream : streams_) {
    if (!stream->backlog.empty()) happened |= take_up_backlog(*stream);
    if (stream->slow_policy.load(std::memory_order_acquire) != SlowPolicy::wait && !has_failed_.load())
      happened |= stand_in(*stream, static_cast<std::uint32_t>(&stream - streams_.data()));
    for (std::size_t index = 0; index < stream->rounds.size(); ++index)
      happened |= advance_round(*stream, *stream->rounds[index]);
    while (!stream->rounds.empty() && stream->rounds.front()->is_over) retire_front(*stream);
  }
  if (!draining_.empty()) happened |= release_drained();
  if (has_news) has_leavers_ = somebody_has_left();
  if (has_leavers_ && !has_failed_.load() && !is_aborted()) happened |= fail_rounds_of_leavers();
  if (has_news || has_failed_.load()) {
    // What was committed before the failure has been taken up above: a commit is never taken back.
    std::optional<Failure> reason;
    {
      std::lock_guard const lock(queue_mutex_);
      reason = abort_reason_;
    }
    // A member that went because it was late hears of that, not of having gone.
    auto failure = reason && reason->code == Errc::evicted ? reason : group_.failure();
    if (!failure) failure = std::move(reason);
    if (failure) {
      has_failed_.store(true);
      fail_all(*failure);
    }
  }
  return happened;
}

bool Engine::somebody_has_left() {
  // A round that nobody can have announced yet cannot be committed once anybody has left, and only then.
  constexpr auto kNever = std::numeric_limits<std::uint64_t>::max() / 2;
  std::lock_guard const lock(queue_mutex_);  // the first stream may just be opened
  return !group_.rounds().is_committed({streams_.front()->id, kNever}) && !group_.failure();
}

bool Engine::fail_rounds_of_leavers() {
  bool happened = false;
  for (auto const& stream : streams_)
    while (!stream->rounds.empty()) {
      auto& round = *stream->rounds.front();
      auto const is_possible = group_.rounds().is_committed(round.id);
      if (is_possible || group_.failure()) break;
      finish(*stream, round, fail(is_possible.error()));
      retire_front(*stream);
      happened = true;
    }
  return happened;
}

bool Engine::take_events() {
  std::vector<Event> events;
  {
    std::lock_guard const lock(queue_mutex_);
    events.swap(events_);
    has_events_.store(false, std::memory_order_relaxed);
  }
  for (auto& event : events) streams_[event.round->stream_index]->backlog.push_back(std::move(event));
  return !events.empty();
}

bool Engine::take_up_backlog(StreamState& stream) {
  bool happened = false;
  while (!stream.backlog.empty()) {
    if (take_late(stream, stream.backlog.front())) {
      stream.backlog.pop_front();
      happened = true;
      continue;
    }
    if (!may_open(stream, stream.backlog.front())) break;
    Event const event = std::move(stream.backlog.front());
    stream.backlog.pop_front();
    if (stream.rounds.empty() || stream.rounds.back() != event.round) {
      if (!event.round->is_over && event.round->agreements.empty() && !event.round->is_sealed)
        stream.rounds.push_back(event.round);
    }
    if (event.collective != nullptr) {
      open(stream, event);
    } else {
      seal_as_owner(stream, event.round);
    }
    happened = true;
  }
  return happened;
}

bool Engine::may_open(StreamState const& stream, Event const& event) const {
  if (event.collective == nullptr || has_failed_.load()) return true;
  auto const& rule = event.collective->rule();
  bool const is_front = stream.rounds.empty() || stream.rounds.front() == event.round;
  if (rule && (*rule)->needs_center() && !is_front) return false;  // its centre is not decided yet
  std::uint64_t oldest = stream.next_exchange;
  for (auto const& round : stream.rounds)
    if (round->first_open < round->agreements.size()) {
      oldest = round->agreements[round->first_open]->first_sequence();
      break;
    }
  return stream.next_exchange < oldest + fabrics::kWindow;
}

void Engine::open(StreamState& stream, Event const& event) {
  auto& round = *event.round;
  auto const& collective = event.collective;
  fabrics::ExchangeKey const key{round.stream_index, stream.next_exchange++};
  collective->bind(view(), connection_->rank, accuses_);
  renew_result(collective->memory());
  bool const is_step = collective->needs_agreement() && collective->descriptor().scope == Scope::step;
  Agreement* agreement = is_step ? round.step_agreement : nullptr;
  if (agreement == nullptr) {
    round.agreements.push_back(std::make_unique<Agreement>(view().world_size(), key.sequence));
    agreement = round.agreements.back().get();
    agreement->open(fabric(), key);
    if (is_step) round.step_agreement = agreement;
  }
  agreement->add(collective);
  if (!is_step) agreement->seal();
  if (collective->descriptor().kind != CollectiveKind::end_of_round) {
    bool const is_first = round.opened++ == 0;
    round.says_its_end = collective->descriptor().is_last;
    if (stream.slow_policy.load(std::memory_order_relaxed) != SlowPolicy::wait) {
      learn_layout(stream, *collective);
      bool const is_own = round.stand_ins.empty() && stream.rounds.front().get() == &round;
      bool const is_paced = collective->descriptor().kind == CollectiveKind::aggregate;
      if (is_first && is_own && is_paced) stream.pace.came(std::chrono::steady_clock::now());
    }
  }
  if (collective->rule() && (*collective->rule())->needs_center()) {
    auto const center = stream.centers.find(collective->descriptor().index_in_round);
    if (center != stream.centers.end() && center->second->size() == collective->result_bytes())
      collective->memory().center = center->second;
  }
  collective->open(fabric(), key);
}

void Engine::renew_result(CollectiveMemory& memory) {
  if (memory.result == nullptr || memory.result_arena == fabric().arena(fabrics::ArenaUse::result).get()) return;
  std::tie(memory.result, memory.result_arena) = memory.renew_result();
}

bool Engine::advance_round(StreamState& stream, RoundState& round) {
  if (round.is_over) return false;
  bool happened = false;
  Blocker blocker;
  for (std::size_t index = round.first_open; index < round.agreements.size(); ++index) {
    auto& agreement = *round.agreements[index];
    if (agreement.is_held()) continue;
    Blocker here;
    if (agreement.advance(here)) happened = true;
    if (agreement.is_held()) notify_waiters();
    if (blocker.stage == Blocker::Stage::nothing) blocker = here;
  }
  while (round.first_open < round.agreements.size() && round.agreements[round.first_open]->is_held())
    ++round.first_open;
  bool const is_held = round.is_sealed && round.first_open == round.agreements.size();
  if (is_held && stream.rounds.front().get() == &round) happened |= end_round(stream, round, blocker);
  round.is_moving |= happened;
  if (!happened) {
    round.blocker.store(pack(blocker), std::memory_order_relaxed);
    auto const waiting_since = accuses_ ? round.waiting_since.load(std::memory_order_relaxed) : 0;
    if (waiting_since != 0) watch(*stream.rounds.front(), waiting_since);
  }
  return happened;
}

void Engine::accuse(RoundState& round) {
  auto const now = std::chrono::steady_clock::now();
  for (auto const& agreement : round.agreements)
    for (auto& accusation : agreement->take_accusations())
      round.accusations.push_back({now + patience_with(accusation.rank), std::move(accusation)});
  std::erase_if(round.accusations, [&](auto const& pending) {
    auto const& [due, accusation] = pending;
    if (now < due) return false;
    auto const who = "rank " + std::to_string(accusation.rank);
    group_.suspect(accusation.rank, who + " " + accusation.what + ", in " + operation(round));
    return true;
  });
}

std::chrono::milliseconds Engine::patience_with(int rank) const {
  // Of two who do not get on the higher rank leaves, unless more speak against the other: so the lower ranks speak
  // first.
  if (connection_->rank < rank) return 0ms;
  return std::max(500ms, group_.config().op_timeout / 4);
}

void Engine::watch(RoundState& round, std::int64_t waiting_since) {
  using Clock = std::chrono::steady_clock;
  accuse(round);
  auto const now = Clock::now();
  if (std::exchange(round.is_moving, false)) round.moved_at = now;
  Clock::time_point const began{std::chrono::nanoseconds(waiting_since)};
  auto const limit = group_.config().op_timeout;
  auto const waited = now - std::max(began, round.moved_at);
  if (waited < limit) return;
  auto const ranks = missing(round).indices();
  bool const blames = !ranks.empty() && 2 * static_cast<int>(ranks.size()) < view().world_size();
  if (blames && waited < limit + patience_with(ranks.front())) return;
  round.moved_at = now;  // asked again after as long
  auto const text = std::to_string(limit.count()) + " ms";
  if (!blames) return group_.suspect(connection_->rank, operation(round) + " has not moved for " + text);
  for (int const rank : ranks)
    group_.suspect(rank, "rank " + std::to_string(rank) + " has held up " + operation(round) + " for " + text);
}

RowMask Engine::missing(RoundState const& round) const {
  RowMask missing(view().world_size());
  for (std::size_t index = round.first_open; index < round.agreements.size(); ++index)
    missing |= round.agreements[index]->missing();
  auto const* const board = round.is_announced ? fabric().ready_board() : nullptr;
  for (int rank = 0; board != nullptr && rank < view().world_size(); ++rank) {
    Digest digest;
    if (rank != connection_->rank && !board->read(rank, round.stream_index, round.id.number, digest)) missing.set(rank);
  }
  return missing;
}

bool Engine::end_round(StreamState& stream, RoundState& round, Blocker& blocker) {
  auto& rounds = group_.rounds();
  auto* const board = fabric().ready_board();
  bool happened = false;
  if (!round.is_announced) {
    round.digest = digest_of(round, view().world_size());
    round.ready_counted = RowMask(view().world_size());
    auto const publish = [&] { board->publish(round.stream_index, round.id.number, round.digest); };
    auto const held = board != nullptr ? rounds.hold(round.id, round.digest, std::ref(publish), view().id)
                                       : rounds.hold(round.id, round.digest, {}, view().id);
    if (!held) {
      view_has_news_.store(true);
      return false;
    }
    round.is_announced = true;
    happened = true;
  }
  for (int rank = 0; board != nullptr && rank < view().world_size(); ++rank) {
    if (rank == connection_->rank || round.ready_counted.test(rank)) continue;
    Digest digest;
    if (!board->read(rank, round.stream_index, round.id.number, digest)) {
      blocker = {Blocker::Stage::ready, rank};
      return happened;
    }
    round.ready_counted.set(rank);
    rounds.count_ready(view().id, round.id, rank, digest);
    happened = true;
  }
  auto const is_committed = rounds.is_committed(round.id);
  if (!is_committed) {
    view_has_news_.store(true);
    return happened;
  }
  if (!*is_committed) {
    blocker = {Blocker::Stage::ready, -1};
    return happened;
  }
  auto outcome = outcome_of(round, view());
  show(stream, round, outcome.has_value());
  finish(stream, round, std::move(outcome));
  return true;
}

void Engine::show(StreamState const& stream, RoundState const& round, bool has_results) {
  if (!round_listener_) return;
  Shown shown;
  shown.round = {stream.id, round.id.number};
  shown.has_results = has_results;
  std::vector<std::shared_ptr<Collective>> collectives;
  for (auto const& agreement : round.agreements)
    for (auto const& collective : agreement->collectives()) collectives.push_back(collective);
  std::sort(collectives.begin(), collectives.end(), [](auto const& a, auto const& b) {
    return a->descriptor().index_in_round < b->descriptor().index_in_round;
  });
  for (auto const& collective : collectives) {
    if (!has_results) break;
    auto const bytes = collective->result_bytes();
    shown.results.push_back({bytes > 0 ? collective->result() : nullptr, bytes, collective->descriptor().dtype,
                             collective->rule() && (*collective->rule())->needs_center()});
  }
  round_listener_(shown);
}

void Engine::set_round_listener(std::function<void(Shown const&)> listener) {
  std::lock_guard const drive(drive_mutex_);
  round_listener_ = std::move(listener);
}

std::optional<std::uint32_t> Engine::find_stream(StreamId id) const {
  std::lock_guard const lock(queue_mutex_);
  for (std::uint32_t index = 0; index < open_streams_; ++index)
    if (streams_[index]->id == id) return index;
  return std::nullopt;
}

std::vector<RoundId> Engine::positions() {
  std::lock_guard const lock(queue_mutex_);
  std::vector<RoundId> positions;
  for (std::uint32_t index = 0; index < open_streams_; ++index)
    positions.push_back({streams_[index]->id, streams_[index]->next_round - 1});
  return positions;
}

void Engine::set_center(StreamId stream, std::uint32_t index_in_round, std::span<std::byte const> result) {
  std::lock_guard const drive(drive_mutex_);
  for (auto const& state : streams_)
    if (!state->name.empty() && state->id == stream)
      state->centers[index_in_round] = std::make_shared<std::vector<std::byte>>(result.begin(), result.end());
}

Outcome<void> Engine::go_on(Deadline deadline) {
  view_has_news_.store(true);
  wake_thread();
  while (connection()->is_provisional()) {
    if (auto failure = group_.failure()) return fail(std::move(*failure));
    {
      std::unique_lock lock(queue_mutex_);
      if (abort_reason_) return fail(*abort_reason_);
      waiters_.fetch_add(1);
      waiters_wake_.wait_until(lock, std::min(deadline.instant(), Deadline::after(kLookPeriod).instant()));
      waiters_.fetch_sub(1);
    }
    if (deadline.has_passed() && connection()->is_provisional())
      return fail(Errc::pending, "the members of the new view are not connected yet; call again to go on waiting");
  }
  std::lock_guard const lock(queue_mutex_);
  for (std::uint32_t index = 0; index < open_streams_; ++index)
    streams_[index]->next_round = group_.rounds().committed(streams_[index]->id) + 1;
  return {};
}

void Engine::remember(std::shared_ptr<std::vector<std::byte>>& center, std::byte const* result, std::size_t bytes) {
  // In the memory of the one before, unless somebody still reads it: fresh pages cost more than the copy.
  if (!center || center.use_count() != 1 || center->size() != bytes)
    center = std::make_shared<std::vector<std::byte>>(bytes);
  if (bytes > 0) kernels::stream_copy(center->data(), result, bytes);
}

void Engine::finish(StreamState& stream, RoundState& round, Outcome<Reduction> outcome) {
  if (!outcome) {
    auto& failure = outcome.error();
    failure.view = view().id;
    failure.elapsed = std::chrono::steady_clock::now() - round.started;
    failure.operation = operation(round);
  } else {
    // What a rule gives no weight may be the same rows in every round: said when it changes.
    std::vector<int> without_weight;
    for (auto const& excluded : outcome->excluded)
      if (excluded.cause == Exclusion::Cause::no_weight) without_weight.push_back(excluded.rank);
    bool const says_weights = without_weight != stream.without_weight;
    stream.without_weight = std::move(without_weight);
    for (auto const& excluded : outcome->excluded) {
      if (excluded.cause == Exclusion::Cause::abstained) continue;  // its member's own choice
      if (excluded.cause == Exclusion::Cause::no_weight && !says_weights) continue;
      group_.events().record("exclusion", {{"stream", stream.name},
                                           {"round", static_cast<std::int64_t>(round.id.number)},
                                           {"rank", static_cast<std::int64_t>(excluded.rank)},
                                           {"reason", excluded.reason}});
    }
    if (outcome->used_fallback != stream.used_fallback) {
      stream.used_fallback = outcome->used_fallback;
      group_.events().record("fallback", {{"stream", stream.name},
                                          {"round", static_cast<std::int64_t>(round.id.number)},
                                          {"in_use", outcome->used_fallback}});
    }
  }
  bool const is_contained =
      outcome && std::binary_search(outcome->contributors.begin(), outcome->contributors.end(), connection_->rank);
  bool const is_away = round.is_stood_in && !round.is_sealed_by_owner;
  for (auto const& agreement : round.agreements)
    for (auto const& collective : agreement->collectives()) {
      auto& memory = collective->memory();
      if (outcome) {
        if (collective->rule() && (*collective->rule())->needs_center()) {
          memory.center.reset();
          remember(stream.centers[collective->descriptor().index_in_round], collective->result(),
                   collective->result_bytes());
        }
        if (is_away && memory.deliver) {
          round.kept.push_back(collective);  // results become visible when the training thread comes for them
          continue;
        }
        if (memory.deliver) memory.deliver(is_contained);
      }
      memory.deliver = nullptr;
      draining_.push_back(collective);
    }
  stream.pace.ended(std::chrono::steady_clock::now());
  round.is_contained = is_contained;
  round.outcome = std::move(outcome);
  round.is_over = true;
  if (!is_away) hand_over(stream, round);
  release_drained();
  round.agreements.clear();
  round.step_agreement = nullptr;
  round.first_open = 0;
  notify_waiters();
}

void Engine::fail_all(Failure const& failure) {
  for (auto const& stream : streams_) {
    while (!stream->backlog.empty()) {
      auto const event = std::move(stream->backlog.front());
      stream->backlog.pop_front();
      if (take_late(*stream, event)) continue;
      if (event.collective == nullptr) event.round->is_sealed_by_owner = true;
      if (event.collective != nullptr) {
        event.collective->memory().deliver = nullptr;
        draining_.push_back(event.collective);
      }
      bool const is_known =
          std::find(stream->rounds.begin(), stream->rounds.end(), event.round) != stream->rounds.end();
      if (!is_known) stream->rounds.push_back(event.round);
    }
    for (auto const& round : stream->rounds)
      if (!round->is_over) finish(*stream, *round, fail(failure));
    while (!stream->rounds.empty()) retire_front(*stream);
  }
}

bool Engine::is_aborted() const {
  std::lock_guard const lock(queue_mutex_);
  return abort_reason_.has_value();
}

// --- another view ------------------------------------------------------------------------------------------------

void Engine::finish_committed() {
  for (auto const& stream : streams_)
    while (!stream->rounds.empty()) {
      auto& round = *stream->rounds.front();
      if (!round.is_over) {
        auto const is_committed = group_.rounds().is_committed(round.id);
        if (!round.is_announced || !is_committed || !*is_committed) break;
        auto outcome = outcome_of(round, view());
        show(*stream, round, outcome.has_value());
        finish(*stream, round, std::move(outcome));
      }
      retire_front(*stream);
    }
}

void Engine::reconnect(std::stop_token const& stop) {
  finish_committed();
  auto const is_wanted = [&] { return !stop.stop_requested() && !is_aborted(); };
  fabric().abort();
  auto const began = std::chrono::steady_clock::now();
  Outcome<Connection> opened = fail(Errc::aborted, {});
  try {
    opened = connector_.connect(connection_->fabric.get(), is_wanted);
  } catch (Error const& error) {
    opened = fail(error.errc(), error.what());
  }
  // Members that are late, or have no quorum, may still come: callers have deadlines of their own.
  if (!opened && opened.error().code == Errc::pending) return;
  if (!opened) {
    needs_connection_.store(false);
    std::lock_guard const lock(queue_mutex_);
    if (!abort_reason_) abort_reason_ = opened.error();
    view_has_news_.store(true);
    return;
  }
  finish_committed();
  // What the old fabric still sends from may change from now on: nobody of the new view reads it.
  for (auto const& collective : draining_)
    if (auto const release = std::exchange(collective->memory().release, nullptr)) release();
  draining_.clear();
  for (auto const& stream : streams_)
    if (stream->untaken)
      for (auto const& collective : stream->untaken->kept) collective->close();
  arena_.use(*opened->fabric);
  begin_again();
  // Kept until here: exchanges of the rounds that begin again were its own.
  std::shared_ptr<Connection const> old;
  {
    std::lock_guard const lock(queue_mutex_);
    bytes_of_old_fabrics_ += connection_->fabric->sent_bytes();
    old = std::exchange(connection_, std::make_shared<Connection>(std::move(*opened)));
  }
  needs_connection_.store(false);
  view_has_news_.store(true);
  using Milliseconds = std::chrono::duration<double, std::milli>;
  group_.events().record("reconnected",
                         {{"communicator", static_cast<std::int64_t>(connector_.number())},
                          {"view", static_cast<std::int64_t>(view().id)},
                          {"world_size", std::int64_t{view().world_size()}},
                          {"milliseconds", Milliseconds(std::chrono::steady_clock::now() - began).count()}});
}

void Engine::begin_again() {
  for (auto const& stream : streams_) {
    std::deque<Event> events;
    for (auto const& round : stream->rounds) {
      if (round->is_over) continue;
      // What the library did in the place of the training thread is not done again: it may have come meanwhile.
      std::vector<std::shared_ptr<Collective>> collectives;
      for (auto const& agreement : round->agreements)
        for (auto const& collective : agreement->collectives()) {
          auto const& descriptor = collective->descriptor();
          if (descriptor.kind == CollectiveKind::end_of_round) continue;
          if (round->stand_ins.count(descriptor.index_in_round) != 0) continue;
          collectives.push_back(collective->again());
        }
      for (auto const& [index, late] : round->late) {
        late->status()->is_held.store(false);
        collectives.push_back(late);
      }
      std::sort(collectives.begin(), collectives.end(), [](auto const& a, auto const& b) {
        return a->descriptor().index_in_round < b->descriptor().index_in_round;
      });
      for (auto const& collective : collectives) events.push_back({round, collective});
      if (round->is_sealed_by_owner) events.push_back({round, nullptr});
      group_.events().record("round_again",
                             {{"stream", stream->name}, {"round", static_cast<std::int64_t>(round->id.number)}});
      round->begin_again();
    }
    for (auto& event : stream->backlog) events.push_back(std::move(event));
    stream->backlog = std::move(events);
    stream->rounds.clear();
    stream->next_exchange = 0;
  }
}

bool Engine::release_drained() {
  // After a failure nobody may wait for sends that will never complete; what the fabric still uses it keeps itself.
  auto const is_over = [&](auto const& collective) {
    if (!collective->is_drained() && !has_failed_.load()) return false;
    if (collective->memory().release) collective->memory().release();
    collective->memory().release = nullptr;
    return true;
  };
  auto const rest = std::remove_if(draining_.begin(), draining_.end(), is_over);
  bool const happened = rest != draining_.end();
  draining_.erase(rest, draining_.end());
  return happened;
}

bool Engine::has_work() const {
  if (has_events_.load() || !draining_.empty() || needs_connection_.load() || fabric().is_busy()) return true;
  for (auto const& stream : streams_) {
    if (!stream->backlog.empty()) return true;
    for (auto const& round : stream->rounds) {
      if (round->is_over) continue;
      if (round->is_sealed || round->is_stood_in) return true;
      for (std::size_t index = round->first_open; index < round->agreements.size(); ++index)
        if (round->agreements[index]->can_advance()) return true;
    }
  }
  return false;
}

std::string Engine::operation(RoundState const& round) const {
  return "round " + std::to_string(round.id.number) + " of stream '" + streams_[round.stream_index]->name + "'";
}

void Engine::notify_waiters() {
  // A read that is also a write: what is_done() reads was stored just before, and must be seen by whoever is not yet
  // counted here. A plain read could overtake that store.
  if (waiters_.fetch_add(0) == 0) return;
  { std::lock_guard const lock(queue_mutex_); }  // a waiter is either before its check or asleep
  waiters_wake_.notify_all();
}

void Engine::wake_thread() {
  {
    std::lock_guard const lock(queue_mutex_);
    thread_is_wanted_ = true;
  }
  thread_wakes_.notify_one();
  connection()->fabric->wake();
}

}  // namespace holdfast::pipeline
