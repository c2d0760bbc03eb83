#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <protocol/fencing.hpp>
#include <protocol/membership.hpp>
#include <protocol/quorum.hpp>

#include "data_plane.hpp"
#include "plan.hpp"
#include "random.hpp"

namespace holdfast::sim {

/// What happened in a schedule, so that a run can show that everything was exercised.
struct Counts {
  std::uint64_t view_changes = 0;
  std::uint64_t certified_views = 0;  ///< under the certified rule
  std::uint64_t tie_broken = 0;       ///< half of the votes stayed, the tie breaker's among them
  std::uint64_t resolved = 0;         ///< rounds committed by the resolution of open rounds
  std::uint64_t redone = 0;
  std::uint64_t handed_over = 0;
  std::uint64_t parks = 0;
  std::uint64_t unparks = 0;
  std::uint64_t joins = 0;
  std::uint64_t evictions = 0;
  std::uint64_t leaves = 0;
  std::uint64_t fences = 0;
  std::uint64_t crashes_at_steps = 0;
  std::uint64_t commits = 0;
  std::uint64_t exchanges = 0;
  std::uint64_t judged_live = 0;    ///< schedules in which a live connected quorum had to commit again, and did
  std::uint64_t judged_parked = 0;  ///< schedules without a quorum, in which everybody had to park, and did
  Counts& operator+=(Counts const& other);

  struct Named {
    char const* name;
    std::uint64_t Counts::*count;
  };
  [[nodiscard]] static std::span<Named const> all();
};

/// Some members, the network between them, the supervisor, and virtual time.
class World {
 public:
  explicit World(Plan plan, bool is_loud = false);

  /// Runs the schedule.
  /// @return what was violated; empty if nothing was
  std::string run();
  [[nodiscard]] Counts const& counts() const { return counts_; }
  /// How many steps before its turn a plan's only crash_at_step fault was left.
  [[nodiscard]] std::uint64_t steps_left() const { return steps_left_.begin()->second; }

 private:
  struct Node {
    MemberId id{};
    std::unique_ptr<protocol::Membership> core;
    bool is_alive = true;
    bool is_stopped = false;
    bool has_ended = false;
    bool is_newcomer = false;
    bool is_leaving = false;
    bool must_park = false;
    std::optional<Time> timer;
    std::uint64_t timer_number = 0;
    std::vector<Stream> streams;
    bool is_frozen = false;
    std::vector<std::size_t> held_back;             ///< letters that came while it was stopped
    std::vector<std::pair<MemberId, Frame>> early;  ///< of the next view
    std::map<StreamId, std::vector<MemberId>> serves;
    bool has_exchange = false;
    std::uint64_t work = 0;            ///< number of the view's work: what was begun before is void
    std::vector<std::size_t> crashes;  ///< places in the plan of faults at a step that may strike
    bool is_mute = false;              ///< is about to crash: nothing leaves any more
    Time left_at = 0;
  };
  struct Letter {
    MemberId from{};
    std::variant<std::monostate, protocol::Message, Frame> content;
  };
  struct Event {
    enum class Kind {
      letter,
      timer,
      computed,
      mask_due,
      overdue,
      pull,
      fault,
      killed,
      resume,
      lost,
      certify,
      arbiter,
      check,
      exchange,
      forge,
      rejoin
    };
    Time at = 0;
    std::uint64_t order = 0;
    Kind kind{};
    std::size_t node = 0;
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    friend bool operator<(Event const& x, Event const& y) { return x.at != y.at ? x.at > y.at : x.order > y.order; }
  };

  // Time and network.
  void push(Time delay, Event::Kind kind, std::size_t node, std::uint64_t a = 0, std::uint64_t b = 0);
  void handle(Event const& event);
  void post(std::size_t from, std::size_t to, std::variant<std::monostate, protocol::Message, Frame> content);
  void deliver(std::size_t node, std::size_t letter);
  [[nodiscard]] bool is_cut(std::size_t from, std::size_t to) const;
  [[nodiscard]] protocol::Instant instant() const;

  // Members.
  std::size_t add(MemberId id, std::unique_ptr<protocol::Membership> core);
  void add_newcomer();
  void start(std::size_t node);
  void collect(std::size_t node);
  bool perform(std::size_t node, protocol::action::Any& action);
  void kill(std::size_t node);
  /// Counts a step.
  /// @return whether the member crashes at it
  bool step(std::size_t node, bool is_receive, std::size_t kind);
  void certify(MemberId member);
  [[nodiscard]] std::optional<std::size_t> find(MemberId id) const;
  void strike(std::size_t fault);
  void heal();

  // Data plane.
  void open_round(std::size_t node, std::size_t stream);
  void send_row(std::size_t node, std::size_t stream);
  void advance(std::size_t node, std::size_t stream);
  void try_hold(std::size_t node, std::size_t stream);
  void receive(std::size_t node, MemberId from, Frame const& frame);
  void on_committed(std::size_t node, RoundId round);
  void on_install(std::size_t node, protocol::action::InstallView const& install);
  void exchange(std::size_t node);
  [[nodiscard]] std::size_t stream_index(StreamId id) const;

  // Judgement.
  void violate(std::string const& what);
  bool is_outcome_of_faults_open();
  void begin_judgement();
  void judge();
  [[nodiscard]] bool has_gone_on() const;
  [[nodiscard]] bool is_live_quorum(protocol::Electorate const& electorate, MemberSet const& live) const;
  [[nodiscard]] std::string describe() const;

  Plan plan_;
  bool is_loud_;
  Random random_;
  Time now_ = 0;
  std::uint64_t order_ = 0;
  std::priority_queue<Event> events_;
  std::vector<Letter> letters_;
  std::vector<std::size_t> free_letters_;
  std::deque<Node> nodes_;
  std::set<std::pair<std::size_t, std::size_t>> cuts_;
  std::uint64_t loss_ = 0;
  std::uint64_t next_id_ = 0;
  protocol::FencingArbiter arbiter_;
  MemberSet certified_;

  // The truth, gathered from all.
  std::map<std::uint64_t, protocol::Value> installed_;
  std::map<std::uint64_t, std::vector<protocol::Value>> proposed_;
  struct Truth {
    Digest digest{};
    std::uint64_t view = 0;  ///< in which it was committed first
  };
  std::map<RoundId, Truth> committed_;
  std::map<RoundId, Digest> states_;
  std::map<std::pair<StreamId, std::uint64_t>, std::vector<std::vector<std::byte>>> exchanges_;
  std::map<std::size_t, std::uint64_t> steps_left_;
  std::string violation_;
  Counts counts_;

  enum class Judgement { none, must_go_on, must_park, open };
  Judgement judgement_ = Judgement::none;
  std::map<StreamId, std::uint64_t> goal_;
  std::uint64_t goal_view_ = 0;
  Time faults_ended_ = 0;
  Time judged_from_ = 0;
  bool is_done_ = false;
};

}  // namespace holdfast::sim
