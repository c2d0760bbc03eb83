#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <holdfast/runtime/group.hpp>

#include "arena.hpp"
#include "fabrics/fabric.hpp"
#include "pipeline/buffer_pool.hpp"
#include "pipeline/connector.hpp"
#include "pipeline/round_pace.hpp"
#include "pipeline/round_state.hpp"
#include "pipeline/rule_state.hpp"

namespace holdfast::pipeline {

/// Half the window, so that a round always fits beside what is left of the one before it.
inline constexpr std::uint32_t kMaxCollectivesPerRound = fabrics::kWindow / 2;

/// Drives the rounds of one communicator: its own thread while the caller computes, the caller's thread while the
/// caller waits (where the fabric allows it; that saves two thread switches on short collectives).
///
/// When the view changes, rounds that the verdict commits are finished from the results that this member holds, and the
/// others begin again among the new members, from the same contributions, over a new fabric.
///
/// Where the training thread comes late to a round, the engine acts in its place as the stream's SlowPolicy says
/// (engine_late.cpp).
/// Threads: begin, add, seal of one stream from one thread at a time; the rest from any thread.
class Engine {
 public:
  /// @param arena told of each new fabric before anything is done with it
  Engine(Group group, Connection connection, Connector connector, ArenaPool& arena);
  ~Engine();
  Engine(Engine const&) = delete;
  Engine& operator=(Engine const&) = delete;

  [[nodiscard]] Group& group() { return group_; }
  [[nodiscard]] BufferPool& pool() { return pool_; }
  /// The members that collectives now go between; after a view change, once the new fabric is open.
  [[nodiscard]] std::shared_ptr<Connection const> connection() const;
  [[nodiscard]] std::uint64_t sent_bytes() const;

  [[nodiscard]] std::uint32_t open_stream(std::string_view name, std::optional<SlowMembers> const& slow = {});
  /// A collective that the engine may have to open in the place of the training thread.
  void register_layout(std::uint32_t stream, std::shared_ptr<Collective const> layout);
  void wait_for_at_least(std::uint32_t stream, int contributions);
  [[nodiscard]] std::shared_ptr<RoundState> begin(std::uint32_t stream);
  /// Undoes begin() for the newest round of its stream, into which nothing has been put. False if it is not the newest.
  bool take_back(RoundState const& round);
  /// Puts a collective into its round. Short ones are left for drive_until(); otherwise the thread finds them within
  /// milliseconds.
  /// @throws Error bad_argument when the round holds as many collectives as a round may
  void add(std::shared_ptr<RoundState> const& round, std::shared_ptr<Collective> collective);
  /// No further collective will be put into the round.
  void seal(std::shared_ptr<RoundState> const& round);

  /// Helps or waits until `is_done` or the deadline, as the training thread that `round` holds up. @return is_done()
  bool wait_for(RoundState const& round, std::function<bool()> const& is_done, Deadline deadline);

  /// What a round gave, as long as the call that shows it lasts.
  struct Shown {
    RoundId round{};
    bool has_results = false;  ///< else it failed by its rule
    struct Result {
      std::byte const* bytes = nullptr;
      std::size_t size = 0;
      DType dtype = DType::float32;
      bool is_center = false;  ///< rules of the next round centre on it
    };
    std::vector<Result> results;  ///< in the order in which they were put into the round
  };
  /// Shown each round that all members know the outcome of, before the results become visible. Called on the thread
  /// that drives; an empty function ends it, and on return it is not running.
  void set_round_listener(std::function<void(Shown const&)> listener);
  [[nodiscard]] std::optional<std::uint32_t> find_stream(StreamId id) const;
  /// The last round of each stream that was begun here.
  [[nodiscard]] std::vector<RoundId> positions();
  /// At a newcomer: the centre that rules of a stream's next round use, as if it had taken part in the last one.
  void set_center(StreamId stream, std::uint32_t index_in_round, std::span<std::byte const> result);
  /// At a newcomer that has become a member: waits for the fabric, and goes on after what the others have committed.
  [[nodiscard]] Outcome<void> go_on(Deadline deadline);

  /// What the rules of all streams remember. Between rounds; from any thread.
  [[nodiscard]] RuleState save_rule_state();
  /// Replaces it. @throws Error bad_argument when it names more streams than a communicator has
  void load_rule_state(RuleState state);

  void abort(std::string_view reason);

  /// The failure of a caller whose deadline passed: says who is being waited for.
  [[nodiscard]] Failure pending(RoundState const& round) const;

 private:
  struct Event {
    std::shared_ptr<RoundState> round;
    std::shared_ptr<Collective> collective;  // null: the round is sealed
  };
  struct StreamState {
    std::string name;
    StreamId id{};
    std::uint64_t next_round = 1;  // of the thread that begins rounds; the rest is of the thread that drives
    std::uint64_t next_exchange = 0;
    std::deque<Event> backlog;                       // not yet taken up, in order
    std::deque<std::shared_ptr<RoundState>> rounds;  // not finished, in order
    // Results of the last committed round, whole, by index in the round, for rules that centre on them.
    std::map<std::uint32_t, std::shared_ptr<std::vector<std::byte>>> centers;
    std::atomic<SlowPolicy> slow_policy{SlowPolicy::wait};
    std::atomic<int> least{0};  // late is who comes after so many others; 0: by time
    RoundPace pace;
    std::map<std::uint64_t, std::weak_ptr<RoundState>> begun;  // by number; under queue_mutex_
    std::vector<std::shared_ptr<Collective const>> layouts;    // under queue_mutex_
    std::shared_ptr<RoundState> untaken;  // over, and the training thread has not come for its results
    bool has_slow_members = false;        // the policy was set; under queue_mutex_
    bool said_unknown_layout = false;
    // Said in the event log when they change.
    std::vector<int> without_weight;
    bool used_fallback = false;
  };

  bool drive_until(std::function<bool()> const& is_done, Deadline deadline);
  [[nodiscard]] View const& view() const { return connection_->view; }
  [[nodiscard]] fabrics::Fabric& fabric() const { return *connection_->fabric; }
  /// Opens the fabric of the group's new view and begins all open rounds again. On the communicator's own thread.
  void reconnect(std::stop_token const& stop);
  /// Ends the rounds that the old view, or the verdict on it, committed.
  void finish_committed();
  void begin_again();
  void show(StreamState const& stream, RoundState const& round, bool has_results);
  [[nodiscard]] bool is_aborted() const;
  void renew_result(CollectiveMemory& memory);
  void run(std::stop_token stop);
  void push(Event event, bool is_worth_waking);
  bool step();
  // Late training threads.
  [[nodiscard]] std::shared_ptr<RoundState> round_of(std::uint32_t stream, std::uint64_t number);
  void learn_layout(StreamState& stream, Collective const& collective);
  bool stand_in(StreamState& stream, std::uint32_t index);
  [[nodiscard]] bool has_all_of(fabrics::ExchangeKey next, int rank, std::uint64_t round) const;
  [[nodiscard]] std::shared_ptr<Collective> absent_collective(StreamState& stream, Descriptor const& example,
                                                              std::shared_ptr<StandIn>& stand_in);
  bool take_late(StreamState& stream, Event const& event);
  void hand_over(StreamState& stream, RoundState& round);
  void hand_over_late(RoundState& round, std::uint32_t index, Collective& late);
  void retire_front(StreamState& stream);
  void seal_as_owner(StreamState& stream, std::shared_ptr<RoundState> const& round);
  void evict_self(StreamState& stream, std::uint64_t round);

  bool take_events();
  bool take_up_backlog(StreamState& stream);
  [[nodiscard]] bool may_open(StreamState const& stream, Event const& event) const;
  void open(StreamState& stream, Event const& event);
  bool advance_round(StreamState& stream, RoundState& round);
  bool end_round(StreamState& stream, RoundState& round, Blocker& blocker);
  static void remember(std::shared_ptr<std::vector<std::byte>>& center, std::byte const* result, std::size_t bytes);
  void finish(StreamState& stream, RoundState& round, Outcome<Reduction> outcome);
  void fail_all(Failure const& failure);
  void accuse(RoundState& round);
  /// How long this member lets others speak first against that one.
  [[nodiscard]] std::chrono::milliseconds patience_with(int rank) const;
  /// A caller has waited for so long as an operation may take, and nothing has moved: those who are waited for are
  /// accused, where they are fewer than half; otherwise nobody in particular is to blame.
  void watch(RoundState& round, std::int64_t waiting_since);
  [[nodiscard]] RowMask missing(RoundState const& round) const;
  /// A member that left in good order may have taken part in the round or not; if not, the round cannot end.
  bool fail_rounds_of_leavers();
  [[nodiscard]] bool somebody_has_left();
  bool release_drained();
  [[nodiscard]] bool has_work() const;
  [[nodiscard]] std::string operation(RoundState const& round) const;
  void notify_waiters();
  void wake_thread();

  Group group_;
  Connector connector_;
  ArenaPool& arena_;
  // Replaced under drive_mutex_ and queue_mutex_ by the communicator's own thread: whoever holds either may read it.
  std::shared_ptr<Connection const> connection_;
  std::uint64_t bytes_of_old_fabrics_ = 0;  // as connection_
  BufferPool pool_;
  bool const accuses_;  // who does not take part is left behind

  std::mutex drive_mutex_;                             // held by the one thread that drives
  std::vector<std::unique_ptr<StreamState>> streams_;  // kMaxStreams of them, never resized
  std::vector<std::shared_ptr<Collective>> draining_;  // over, but with sends of their own not completed
  bool has_leavers_ = false;
  std::function<void(Shown const&)> round_listener_;

  mutable std::mutex queue_mutex_;
  std::vector<Event> events_;
  std::optional<Failure> abort_reason_;
  std::uint32_t open_streams_ = 0;
  bool thread_is_wanted_ = false;
  std::condition_variable_any thread_wakes_;
  std::condition_variable waiters_wake_;
  std::atomic<bool> has_events_{false};
  std::atomic<bool> is_looking_{false};       // the thread looks for events by itself
  std::atomic<bool> watches_pace_{false};     // somebody must notice when the training thread is late
  std::atomic<bool> watches_closely_{false};  // at once
  std::atomic<bool> view_has_news_{true};     // somebody may have left before this engine was told of it
  std::atomic<bool> has_failed_{false};
  std::atomic<bool> needs_connection_{false};  // the view has changed; only the own thread may drive
  std::atomic<bool> is_driven_{false};
  std::atomic<int> waiters_{0};
  std::jthread thread_;  // last: stops before anything it uses goes
};

}  // namespace holdfast::pipeline
