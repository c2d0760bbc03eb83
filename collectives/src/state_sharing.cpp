#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include <holdfast/collectives/state_sharing.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/log.hpp>

#include "communicator_impl.hpp"
#include "kernels/kernels.hpp"
#include "state/state_donor.hpp"
#include "state/state_receiver.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Clock = Deadline::Clock;
using state::RoundRecord;
using state::StateCopy;
using state::StateDonor;
using state::StateReceiver;

constexpr auto kHoldUp = 1s;
constexpr auto kAskLimit = 500ms;
constexpr auto kPause = 20ms;
constexpr auto kLook = 50ms;
constexpr int kMostMismatches = 2;
constexpr std::size_t kDigestsKept = 16;

std::int64_t number(auto value) {
  return static_cast<std::int64_t>(value);
}

double milliseconds_since(Clock::time_point then) {
  return std::chrono::duration<double, std::milli>(Clock::now() - then).count();
}

std::string name_of(MemberId member) {
  return "member " + std::to_string(static_cast<std::uint64_t>(member));
}

Failure failure_of(Errc code, std::string detail) {
  Failure failure;
  failure.code = code;
  failure.operation = "join";
  failure.where = "state sharing";
  failure.detail = std::move(detail);
  return failure;
}

}  // namespace

struct StateSharing::Impl {
  Impl(std::shared_ptr<Communicator::Impl> of, StateRegistry& registered)
      : communicator(std::move(of)), group(communicator->engine.group()), registry(registered) {
    if (!can_anybody_join()) return;
    auto const limit = Deadline::after(group.config().start_timeout);
    auto const same = group.agree("training state", registry.describe(), limit);
    if (!same) throw Error(same.error().code, same.error().message());
    if (!group.is_newcomer()) donor.emplace(group, registry.sizes(Sharing::replicated));
  }
  ~Impl() { communicator->engine.set_round_listener({}); }

  [[nodiscard]] bool can_anybody_join() const { return !group.join_address().empty(); }

  // --- at members ------------------------------------------------------------------------------------------------

  void boundary() {
    if (!donor) return;
    bool const is_listening_in_vain = is_listening && !donor->wants_rounds();
    bool const wants_copy = donor->is_copy_wanted();
    bool const wants_digest = donor->is_digest_wanted();
    bool const wants_state = group.rounds().is_state_wanted();
    if (is_listening_in_vain && !wants_copy) listen(false);
    if (wants_copy) give_copy();
    if (wants_digest || wants_state) {
      auto const positions = this->positions();
      auto const digest = this->digest();
      if (wants_digest) donor->give_digest(positions, digest);
      if (wants_state)
        for (auto const& position : positions) group.rounds().note_state(position, digest);
    }
    donor->hold_up(kHoldUp);
  }

  void give_copy() {
    auto const began = Clock::now();
    listen(true);
    auto const copy = std::make_shared<StateCopy>();
    copy->positions = positions();
    copy->parts = registry.snapshot(Sharing::replicated, donor->take_spare());
    copy->rules = communicator->engine.save_rule_state().encode();
    std::uint64_t bytes = copy->rules.size();
    for (auto const& part : copy->parts) bytes += part.bytes.size();
    donor->give_copy(copy);
    group.events().record("snapshot", {{"bytes", number(bytes)}, {"milliseconds", milliseconds_since(began)}});
  }

  void listen(bool does) {
    if (std::exchange(is_listening, does) == does) return;
    if (!does) return communicator->engine.set_round_listener({});
    communicator->engine.set_round_listener([this](pipeline::Engine::Shown const& shown) {
      if (!donor->wants_rounds()) return;
      auto const record = std::make_shared<RoundRecord>();
      record->round = shown.round;
      record->has_results = shown.has_results;
      for (auto const& result : shown.results) {
        auto& kept = record->results.emplace_back();
        kept.size = result.size;
        kept.dtype = static_cast<std::uint8_t>(result.dtype);
        kept.is_center = result.is_center;
        kept.bytes = memory(result.size);
        if (result.size > 0) kernels::stream_copy(kept.bytes.get(), result.bytes, result.size);
      }
      donor->add(record);
    });
  }

  /// From the pool, and back to it.
  [[nodiscard]] std::shared_ptr<std::byte[]> memory(std::size_t bytes) const {
    auto buffer = communicator->engine.pool().take(bytes);
    return {buffer.release(), [owner = communicator, bytes](std::byte* memory) {
              owner->engine.pool().give_back(pipeline::BufferPool::Buffer(memory, &std::free), bytes);
            }};
  }

  [[nodiscard]] state::Positions positions() const {
    auto all = communicator->engine.positions();
    all.erase(std::remove_if(all.begin(), all.end(), [](RoundId const& at) { return at.number == 0; }), all.end());
    return all;
  }

  [[nodiscard]] Digest digest() const {
    auto digest = registry.digest();
    digest.low ^= state::hash_of(communicator->engine.save_rule_state().encode());
    return digest;
  }

  // --- at a newcomer ---------------------------------------------------------------------------------------------

  /// How far a newcomer is with one donor.
  struct Visit {
    MemberId donor{};
    std::unique_ptr<StateReceiver> receiver;
    std::map<StreamId, std::uint64_t> at;
    bool is_verified = false;
    bool has_asked = false;
    std::optional<std::pair<state::Positions, Digest>> expected;
    std::deque<std::pair<std::map<StreamId, std::uint64_t>, Digest>> digests;  ///< taken here on the way
  };
  enum class Ended { entered, donor_gone, mismatch };

  Outcome<void> join(Replay const& replay, Deadline deadline) {
    if (!group.is_newcomer()) return {};
    auto const began = Clock::now();
    int mismatches = 0;
    std::set<MemberId> tried;
    group.rounds().set_listener(this, [this] {
      std::lock_guard const lock(receiver_mutex);
      if (receiver != nullptr) receiver->wake();
    });
    struct Quiet {
      Impl& self;
      ~Quiet() { self.group.rounds().set_listener(&self, {}); }
    } const quiet{*this};
    while (group.is_newcomer()) {
      if (deadline.has_passed())
        return fail(failure_of(Errc::pending, "the deadline passed before this newcomer had the members' state"));
      if (auto renewed = renew_if_spent(deadline); !renewed) return renewed;
      auto visit = find_donor(tried, deadline);
      if (!visit) continue;
      auto ended = follow(*visit, replay, deadline);
      watch(nullptr);
      if (!ended) return fail(std::move(ended.error()));
      if (*ended == Ended::entered || !group.withdraw()) break;
      if (*ended == Ended::mismatch && ++mismatches == kMostMismatches)
        return fail(failure_of(
            Errc::diverged, "after a replay of the members' rounds this newcomer's state is another than theirs, " +
                                std::to_string(mismatches) +
                                " times; the registered state must change by the committed rounds alone, in the same "
                                "way here and there"));
      tried.insert(visit->donor);
    }
    if (auto on = communicator->engine.go_on(deadline); !on) return on;
    donor.emplace(group, registry.sizes(Sharing::replicated));
    auto const view = group.view();
    group.events().record("entered", {{"view", number(view.id)},
                                      {"world_size", std::int64_t{view.world_size()}},
                                      {"rounds_replayed", number(replayed)},
                                      {"milliseconds", milliseconds_since(began)}});
    log_info("entered view " + std::to_string(static_cast<std::uint64_t>(view.id)) + " as rank " +
             std::to_string(group.rank()) + " of " + std::to_string(view.world_size()) + " after " +
             std::to_string(replayed) + " rounds replayed");
    return {};
  }

  Outcome<void> renew_if_spent(Deadline deadline) {
    auto const failure = group.failure();
    if (!failure) return {};
    if (failure->code != Errc::evicted) return fail(*failure);
    log_info(failure->detail);
    return group.renew(deadline);
  }

  void watch(StateReceiver* of) {
    std::lock_guard const lock(receiver_mutex);
    receiver = of;
  }

  /// The lowest id that does not coordinate, if possible, and of those not tried yet.
  std::optional<Visit> find_donor(std::set<MemberId>& tried, Deadline deadline) {
    auto members = group.view().members;
    members.erase(std::remove_if(members.begin(), members.end(), [&](auto const& m) { return m.id == group.self(); }),
                  members.end());
    if (members.size() > 1) std::rotate(members.begin(), members.begin() + 1, members.end());
    for (auto const& member : members) {
      if (tried.contains(member.id)) continue;
      auto const limit = std::min(deadline.instant(), Deadline::after(kAskLimit).instant());
      auto const where = group.ask(member.id, StateDonor::kKey, Deadline(limit));
      if (!where) continue;
      auto called = StateReceiver::connect(group, *where, Deadline(std::min(deadline.instant(), limit + kAskLimit)));
      if (!called) {
        log_info("no state from " + name_of(member.id) + ": " + called.error().detail);
        tried.insert(member.id);
        continue;
      }
      group.events().record("donor_chosen", {{"donor", number(member.id)}});
      Visit visit;
      visit.donor = member.id;
      visit.receiver = std::move(*called);
      return visit;
    }
    // Nobody shares its state yet, or everybody was tried: they may be able to later.
    tried.clear();
    std::this_thread::sleep_for(std::min<Clock::duration>(kPause, deadline.remaining()));
    return std::nullopt;
  }

  [[nodiscard]] bool is_donor_there(Visit const& visit) const { return group.view().rank_of(visit.donor).has_value(); }

  Outcome<Ended> follow(Visit& visit, Replay const& replay, Deadline deadline) {
    watch(visit.receiver.get());
    auto taken = take_copy(visit, deadline);
    if (!taken) return fail(std::move(taken.error()));
    if (!*taken) return Ended::donor_gone;
    // From here on what was noted before holds no longer.
    if (!group.withdraw()) return Ended::entered;
    if (auto restored = restore(visit, **taken); !restored) return fail(std::move(restored.error()));
    taken->reset();
    while (group.is_newcomer()) {
      if (deadline.has_passed())
        return fail(failure_of(Errc::pending, "the deadline passed while this newcomer replayed the members' rounds"));
      if (group.failure()) {
        if (auto renewed = renew_if_spent(deadline); !renewed) return fail(std::move(renewed.error()));
      }
      auto record = visit.receiver->next_round();
      if (!record) {
        log_info("no more rounds from " + name_of(visit.donor) + ": " + record.error().detail);
        return Ended::donor_gone;
      }
      if (*record) {
        auto done = replay_one(visit, **record, replay);
        if (!done) return fail(std::move(done.error()));
        if (!*done) return Ended::donor_gone;
        continue;
      }
      if (!is_equal_so_far(visit)) return Ended::mismatch;
      if (!is_donor_there(visit)) return Ended::donor_gone;
      visit.receiver->wait(Deadline(std::min(deadline.instant(), Deadline::after(kLook).instant())));
    }
    return Ended::entered;
  }

  /// Nothing when the donor is gone.
  Outcome<std::optional<StateCopy>> take_copy(Visit const& visit, Deadline deadline) {
    auto const began = Clock::now();
    while (true) {
      auto copy = visit.receiver->take_copy(Deadline(std::min(deadline.instant(), Deadline::after(kLook).instant())));
      if (copy) {
        group.events().record("state_received", {{"donor", number(visit.donor)},
                                                 {"bytes", number(visit.receiver->received_bytes())},
                                                 {"milliseconds", milliseconds_since(began)}});
        return std::optional(std::move(*copy));
      }
      if (copy.error().code != Errc::pending || !is_donor_there(visit)) {
        log_info("no state from " + name_of(visit.donor) + ": " + copy.error().detail);
        return std::optional<StateCopy>();
      }
      if (deadline.has_passed()) return fail(std::move(copy.error()));
      if (auto renewed = renew_if_spent(deadline); !renewed) return fail(std::move(renewed.error()));
    }
  }

  Outcome<void> restore(Visit& visit, StateCopy const& copy) {
    if (auto restored = registry.restore(copy.parts); !restored) return restored;
    if (!copy.rules.empty()) {
      auto rules = pipeline::RuleState::decode(copy.rules);
      if (!rules) return fail(std::move(rules.error()));
      communicator->engine.load_rule_state(std::move(*rules));
    }
    for (auto const& position : copy.positions) visit.at[position.stream] = position.number;
    if (!(registry.digest() == copy.digest))
      return fail(
          failure_of(Errc::diverged,
                     "the restored state is another than the one sent: a part's load() does not bring back what "
                     "its save() gave"));
    return {};
  }

  /// False when the donor left rounds out.
  Outcome<bool> replay_one(Visit& visit, RoundRecord const& record, Replay const& replay) {
    auto& at = visit.at[record.round.stream];
    if (record.round.number <= at) {
      visit.receiver->replayed(record);
      return true;
    }
    if (record.round.number != at + 1) return false;
    auto& engine = communicator->engine;
    ReplayedRound shown;
    shown.round = record.round;
    shown.has_results = record.has_results;
    for (std::size_t index = 0; index < record.results.size(); ++index) {
      auto const& result = record.results[index];
      auto const dtype = static_cast<DType>(result.dtype);
      auto const size = element_bytes(dtype);
      if (size == 0 || result.size % size != 0)
        return fail(failure_of(Errc::corrupt_message, "the donor sent a result of an unknown kind"));
      shown.results.emplace_back(result.bytes.get(), result.size / size, dtype);
      if (result.is_center)
        engine.set_center(record.round.stream, static_cast<std::uint32_t>(index), {result.bytes.get(), result.size});
    }
    if (auto const stream = engine.find_stream(record.round.stream)) {
      shown.stream = {*stream};
      if (auto done = replay(shown); !done) return fail(std::move(done.error()));
    }
    at = record.round.number;
    ++replayed;
    visit.receiver->replayed(record);
    return true;
  }

  /// With all rounds replayed that are here: says how far the state is, and compares it with the donor's.
  bool is_equal_so_far(Visit& visit) {
    bool const is_new = visit.digests.empty() || visit.digests.back().first != visit.at;
    if (is_new) {
      if (visit.is_verified) note(visit, {});
      visit.digests.emplace_back(visit.at, digest());
      if (visit.digests.size() > kDigestsKept) visit.digests.pop_front();
    }
    if (visit.is_verified) {
      if (is_new) note(visit, visit.digests.back().second);
      return true;
    }
    if (!std::exchange(visit.has_asked, true)) visit.receiver->ask_digest();
    if (auto given = visit.receiver->take_digest()) visit.expected = std::move(given);
    if (!visit.expected) return true;
    std::map<StreamId, std::uint64_t> where;
    for (auto const& position : visit.expected->first) where[position.stream] = position.number;
    auto const own = std::find_if(visit.digests.begin(), visit.digests.end(),
                                  [&](auto const& taken) { return taken.first == where; });
    if (own == visit.digests.end()) {
      bool const is_behind =
          std::any_of(where.begin(), where.end(), [&](auto const& one) { return visit.at[one.first] < one.second; });
      if (is_behind) return true;
      // It went by while other rounds were here: once more.
      visit.expected.reset();
      visit.has_asked = false;
      return true;
    }
    bool const is_equal = own->second == visit.expected->second;
    group.events().record("state_compared",
                          {{"donor", number(visit.donor)}, {"rounds_replayed", number(replayed)}, {"equal", is_equal}});
    if (!is_equal) {
      log_error("after a replay of the members' rounds this newcomer's state is another than that of " +
                name_of(visit.donor));
      return false;
    }
    visit.is_verified = true;
    note(visit, visit.digests.back().second);
    static_cast<void>(group.enter(Deadline::now()));  // from now on it may be admitted
    return true;
  }

  void note(Visit const& visit, Digest digest) {
    for (auto const& [stream, round] : visit.at)
      if (round > 0) group.rounds().note_state({stream, round}, digest);
  }

  std::shared_ptr<Communicator::Impl> communicator;
  Group group;
  StateRegistry& registry;
  std::optional<StateDonor> donor;
  bool is_listening = false;
  std::uint64_t replayed = 0;
  std::mutex receiver_mutex;
  StateReceiver* receiver = nullptr;  ///< to be woken when the view changes
};

StateSharing::StateSharing(Communicator& communicator, StateRegistry& registry)
    : impl_(std::make_unique<Impl>(communicator.impl_, registry)) {}
StateSharing::StateSharing(StateSharing&&) noexcept = default;
StateSharing& StateSharing::operator=(StateSharing&&) noexcept = default;
StateSharing::~StateSharing() = default;

void StateSharing::boundary() {
  impl_->boundary();
}

Outcome<void> StateSharing::join(Replay const& replay, Deadline deadline) {
  return impl_->join(replay, deadline);
}

std::uint64_t StateSharing::replayed_rounds() const {
  return impl_->replayed;
}

}  // namespace holdfast
