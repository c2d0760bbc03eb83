#include <algorithm>
#include <cstring>
#include <utility>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>

#include "kernels/kernels.hpp"
#include "pipeline/engine.hpp"

// What the engine does where the training thread comes late to a round. A member that stands in announces that no
// contribution will come from it. It says so once per (view, exchange), and everybody hears it before any data moves:
// so all owners leave out the same row, whatever came in the meantime.

namespace holdfast::pipeline {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxLayouts = 1024;
// A member that goes waits this long for the others to answer its goodbye.
constexpr auto kGoodbye = 1s;

std::string seconds(std::chrono::nanoseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f s", std::chrono::duration<double>(time).count());
  return text;
}

}  // namespace

std::shared_ptr<RoundState> Engine::round_of(std::uint32_t stream, std::uint64_t number) {
  auto& state = *streams_[stream];
  std::lock_guard const lock(queue_mutex_);
  while (!state.begun.empty() && state.begun.begin()->second.expired()) state.begun.erase(state.begun.begin());
  auto& known = state.begun[number];
  auto round = known.lock();
  if (round == nullptr) known = round = std::make_shared<RoundState>(stream, state.id, number);
  return round;
}

void Engine::register_layout(std::uint32_t stream, std::shared_ptr<Collective const> layout) {
  std::lock_guard const lock(queue_mutex_);
  auto& layouts = streams_[stream]->layouts;
  bool const is_known = std::any_of(layouts.begin(), layouts.end(), [&](auto const& known) {
    return known->descriptor().has_layout_of(layout->descriptor());
  });
  if (!is_known && layouts.size() < kMaxLayouts) layouts.push_back(std::move(layout));
}

void Engine::learn_layout(StreamState& stream, Collective const& collective) {
  if (collective.descriptor().kind != CollectiveKind::aggregate) return;
  auto& newest = stream.layouts;
  {
    std::lock_guard const lock(queue_mutex_);
    bool const is_known = std::any_of(newest.begin(), newest.end(), [&](auto const& known) {
      return known->descriptor().has_layout_of(collective.descriptor());
    });
    if (is_known || newest.size() == kMaxLayouts) return;
  }
  auto descriptor = collective.descriptor();
  auto layout = collective.similar(std::move(descriptor), {});
  std::lock_guard const lock(queue_mutex_);
  newest.push_back(std::move(layout));
}

void Engine::wait_for_at_least(std::uint32_t stream, int contributions) {
  streams_[stream]->least.store(std::max(contributions, 0));
  watches_closely_.store(contributions > 0);
}

// --- in its place ------------------------------------------------------------------------------------------------

bool Engine::stand_in(StreamState& stream, std::uint32_t index) {
  int const members = view().world_size();
  if (members == 1 || stream.untaken != nullptr || !stream.backlog.empty() || has_events_.load()) return false;
  // The others may be in the next round before this member has seen the end of its own: one after the other.
  auto round = stream.rounds.empty() ? nullptr : stream.rounds.front();
  bool const is_open = round != nullptr && !round->is_sealed;
  if (round != nullptr && (!is_open || stream.rounds.size() > 1)) return false;

  fabrics::ExchangeKey const next{index, stream.next_exchange};
  std::optional<Descriptor> example;
  int waiting = 0;
  int complete = 0;
  for (int rank = 0; rank < members; ++rank) {
    if (rank == connection_->rank) continue;
    auto const* const early = fabric().early_announcement(next, rank);
    if (early == nullptr) continue;
    auto const theirs = Descriptor::decode(*early);
    if (theirs.is_absent) continue;
    ++waiting;
    if (has_all_of(next, rank, theirs.round)) ++complete;
    if (!example) example = theirs;
  }
  if (!example) return false;
  auto const number = is_open ? round->id.number : group_.rounds().committed(stream.id) + 1;
  if (example->round != number || example->index_in_round != (is_open ? round->opened : 0)) return false;
  // Others need what only the training thread has, and come in rounds of another pace: set-up, most often.
  if (example->kind != CollectiveKind::aggregate && example->kind != CollectiveKind::end_of_round) return false;

  auto const now = std::chrono::steady_clock::now();
  if (2 * waiting >= members) stream.pace.half_waits(now);
  int const least = std::min(stream.least.load(), members - 1);
  if (least > 0 ? complete < least : !stream.pace.is_late(now)) return false;
  if (stream.slow_policy.load() == SlowPolicy::evict) {
    if (is_aborted() || stream.pace.limit() == 0ns) return false;
    evict_self(stream, number);
    return true;
  }

  std::shared_ptr<StandIn> stand_in;
  auto collective = absent_collective(stream, *example, stand_in);
  if (collective == nullptr) return false;
  if (!is_open) round = round_of(index, number);
  Event const event{round, std::move(collective)};
  if (!may_open(stream, event)) return false;
  if (!is_open) stream.rounds.push_back(round);
  if (!std::exchange(round->is_stood_in, true)) {
    group_.events().record("stood_in", {{"stream", stream.name},
                                        {"round", static_cast<std::int64_t>(number)},
                                        {"late_s", std::chrono::duration<double>(stream.pace.elapsed(now)).count()},
                                        {"limit_s", std::chrono::duration<double>(stream.pace.limit()).count()},
                                        {"waiting", std::int64_t{waiting}}});
    log_debug("the training thread is late for " + operation(*round) + " (" + seconds(stream.pace.elapsed(now)) +
              "); it ends without its contribution");
  }
  if (stand_in != nullptr) round->stand_ins.emplace(round->opened, std::move(stand_in));
  bool const is_end = event.collective->descriptor().kind == CollectiveKind::end_of_round;
  open(stream, event);
  if (is_end || round->says_its_end) {
    round->is_sealed = true;
    if (round->step_agreement != nullptr) round->step_agreement->seal();
  }
  return true;
}

// Whether `rank` has announced all collectives of the round.
bool Engine::has_all_of(fabrics::ExchangeKey next, int rank, std::uint64_t round) const {
  for (std::uint32_t step = 0; step <= kMaxCollectivesPerRound; ++step, ++next.sequence) {
    auto const* const early = fabric().early_announcement(next, rank);
    if (early == nullptr) return false;
    auto const theirs = Descriptor::decode(*early);
    if (theirs.round != round) return true;
    if (theirs.is_last || theirs.kind == CollectiveKind::end_of_round) return true;
  }
  return false;
}

std::shared_ptr<Collective> Engine::absent_collective(StreamState& stream, Descriptor const& example,
                                                      std::shared_ptr<StandIn>& stand_in) {
  auto descriptor = example;
  descriptor.weight = 1;
  if (example.kind == CollectiveKind::end_of_round)
    return std::make_shared<Collective>(std::move(descriptor), std::nullopt, std::nullopt, CollectiveMemory{},
                                        std::size_t{1}, pool_);
  descriptor.is_absent = true;
  std::shared_ptr<Collective const> layout;
  {
    std::lock_guard const lock(queue_mutex_);
    auto const found = std::find_if(stream.layouts.begin(), stream.layouts.end(),
                                    [&](auto const& known) { return known->descriptor().has_layout_of(example); });
    if (found != stream.layouts.end()) layout = *found;
  }
  if (layout == nullptr) {
    if (!std::exchange(stream.said_unknown_layout, true))
      log_warning("the training thread is late for round " + std::to_string(example.round) + " of stream '" +
                  stream.name + "', and the others wait: nothing is known of its " + std::to_string(example.elements) +
                  " elements by " + example.rule + "; name what will come with Communicator::register_layout");
    return nullptr;
  }
  stand_in = std::make_shared<StandIn>();
  stand_in->bytes = example.elements * element_bytes(example.dtype);
  auto const bytes = layout->coded_result_bytes();
  auto const renew = [this, stand_in, bytes] {
    if (bytes > 0) stand_in->result = arena_.allocate(fabrics::ArenaUse::result, bytes);
    return std::pair<std::byte*, fabrics::Arena const*>(stand_in->result.data(), stand_in->result.arena().get());
  };
  CollectiveMemory memory;
  try {
    std::tie(memory.result, memory.result_arena) = renew();
  } catch (Error const& error) {
    log_warning(std::string("cannot serve in the place of the late training thread: ") + error.what());
    return nullptr;
  }
  memory.renew_result = renew;
  memory.decoded = [stand_in = std::weak_ptr(stand_in), elements = example.elements] {
    auto const held = stand_in.lock();
    held->decoded.resize(elements);
    return held->decoded.data();
  };
  memory.release = [stand_in] {};  // the others' reads and this member's sends end first
  return layout->similar(std::move(descriptor), std::move(memory));
}

void Engine::seal_as_owner(StreamState& stream, std::shared_ptr<RoundState> const& round) {
  if (stream.slow_policy.load(std::memory_order_relaxed) != SlowPolicy::wait && !round->says_its_end &&
      view().world_size() > 1) {
    Descriptor end;
    end.kind = CollectiveKind::end_of_round;
    end.round = round->id.number;
    end.index_in_round = round->opened;
    open(stream, {round, std::make_shared<Collective>(std::move(end), std::nullopt, std::nullopt, CollectiveMemory{},
                                                      std::size_t{1}, pool_)});
  }
  round->is_sealed_by_owner = true;
  round->is_sealed = true;
  if (round->step_agreement != nullptr) round->step_agreement->seal();
}

void Engine::evict_self(StreamState& stream, std::uint64_t round) {
  auto const now = std::chrono::steady_clock::now();
  std::string const what = "round " + std::to_string(round) + " of stream '" + stream.name + "'";
  std::string const evidence = "its training thread is late for " + what + ": " + seconds(stream.pace.elapsed(now)) +
                               " after the last one, where " + seconds(stream.pace.limit()) + " are usual at most";
  group_.events().record("suspicion", {{"member_rank", std::int64_t{connection_->rank}}, {"evidence", evidence}});
  log_error("slow_policy = evict: this member leaves the group, " + evidence);
  {
    std::lock_guard const lock(queue_mutex_);
    if (!abort_reason_) {
      abort_reason_ = Failure{};
      abort_reason_->code = Errc::evicted;
      abort_reason_->view = view().id;
      abort_reason_->failed_members = {group_.self()};
      abort_reason_->where = "communicator";
      abort_reason_->operation = what;
      abort_reason_->detail = evidence +
                              "; the others go on without this member. Start it again to rejoin, raise "
                              "HOLDFAST_SLOW_FACTOR, or take slow_policy = skip";
    }
  }
  view_has_news_.store(true);
  static_cast<void>(group_.leave(Deadline::after(kGoodbye)));
}

// --- when it comes -----------------------------------------------------------------------------------------------

bool Engine::take_late(StreamState& stream, Event const& event) {
  auto& round = *event.round;
  if (event.collective == nullptr) {
    if (!round.is_stood_in || (!round.is_sealed && !round.is_over)) return false;
    round.is_sealed_by_owner = true;
    if (round.is_over) hand_over(stream, round);
    return true;
  }
  auto const index = event.collective->descriptor().index_in_round;
  if (round.is_stood_in && index >= round.opened && round.is_sealed) round.has_excess = true;
  if (!round.is_over && !round.has_excess && round.stand_ins.count(index) == 0) return false;
  if (!round.is_stood_in) return false;
  event.collective->status()->is_held.store(true, std::memory_order_release);
  round.late.emplace(index, event.collective);
  notify_waiters();
  return true;
}

void Engine::hand_over(StreamState& stream, RoundState& round) {
  for (auto const& collective : round.kept) {
    if (auto const deliver = std::exchange(collective->memory().deliver, nullptr)) deliver(round.is_contained);
    draining_.push_back(collective);
  }
  for (auto const& [index, late] : round.late) {
    hand_over_late(round, index, *late);
    draining_.push_back(late);
  }
  if (round.has_excess && *round.outcome) {
    Failure failure;
    failure.code = Errc::mismatch;
    failure.operation = operation(round);
    failure.detail =
        "this member put more collectives into the round than the others, who ended it; all members must "
        "put the same collectives into a round in the same order";
    round.outcome = fail(std::move(failure));
  }
  round.kept.clear();
  round.late.clear();
  round.stand_ins.clear();
  if (stream.untaken.get() == &round) stream.untaken = nullptr;
  round.is_finished.store(true, std::memory_order_release);
  notify_waiters();
}

// Its own contribution came too late; what was agreed without it is the result.
void Engine::hand_over_late(RoundState& round, std::uint32_t index, Collective& late) {
  auto& memory = late.memory();
  auto const found = round.stand_ins.find(index);
  if (*round.outcome && found != round.stand_ins.end() && memory.deliver) {
    auto const& stand_in = *found->second;
    renew_result(memory);
    if (!stand_in.decoded.empty()) {
      std::copy(stand_in.decoded.begin(), stand_in.decoded.end(), memory.decoded());
    } else if (stand_in.bytes > 0) {
      kernels::stream_copy(memory.result, stand_in.result.data(), stand_in.bytes);
    }
    memory.deliver(false);
  }
  memory.deliver = nullptr;
}

void Engine::retire_front(StreamState& stream) {
  auto round = std::move(stream.rounds.front());
  stream.rounds.pop_front();
  if (!round->is_finished.load()) stream.untaken = std::move(round);
}

}  // namespace holdfast::pipeline
