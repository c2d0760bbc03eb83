#include "group_state.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <utility>

#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "../net/contact.hpp"
#include "../net/mpi_session.hpp"
#include "../net/rendezvous.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Clock = Deadline::Clock;

// Long enough for live members to answer a goodbye, short enough that nobody takes it for a hang.
constexpr auto kDestructorLimit = 1s;

// The supervisor looks at the process itself before it ends it, so little more silence is needed before it is asked.
constexpr auto kFenceAfter = 100ms;

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

std::int64_t number(auto id) {
  return static_cast<std::int64_t>(id);
}

}  // namespace

protocol::MembershipOptions options_of(Config const& config) {
  protocol::MembershipOptions options;
  options.heartbeat_period = config.heartbeat_period;
  options.heartbeat_timeout = config.heartbeat_timeout;
  options.on_loss = config.on_loss == "end" ? protocol::OnLoss::end : protocol::OnLoss::shrink;
  options.fence_after = kFenceAfter;
  options.parked_limit = config.parked_limit;
  // Long enough to replay a round and to take a digest, and no longer than a silent member is waited for.
  options.learner_patience = config.heartbeat_timeout;
  options.seed = std::random_device{}();
  return options;
}

GroupState::GroupState(Config given, protocol::Value first, net::Record self)
    : config(std::move(given)),
      events(config.event_log, self.rank),
      rounds(std::shared_ptr<GroupState>(std::shared_ptr<void>(), this)),
      record_(std::move(self)),
      membership_(std::move(first), MemberId{static_cast<std::uint64_t>(record_.rank)}, options_of(config)) {}

GroupState::GroupState(Config given, net::Record self)
    : config(std::move(given)),
      events(config.event_log, self.rank),
      rounds(std::shared_ptr<GroupState>(std::shared_ptr<void>(), this)),
      record_(std::move(self)),
      membership_(net::seat_of(record_), options_of(config)) {
  membership_.hold_back();
}

GroupState::~GroupState() {
  auto const left = leave(Deadline::after(kDestructorLimit));
  if (!left) log_debug(left.error().message());
}

void GroupState::connect(std::unique_ptr<net::Mesh> mesh, Deadline deadline) {
  auto const& seats = membership_.value().seats;
  for (auto const& seat : seats)
    if (seat.member.id == membership_.self()) mesh->prepare(config.job_id, seat, *this);
  if (!config.supervisor.empty()) mesh->report_to(config.supervisor, address_for_newcomers());
  for (auto const& seat : seats)
    if (seat.member.id != membership_.self()) mesh->add(seat);
  mesh->take_newcomers(config.on_loss != "end");
  mesh_ = std::move(mesh);
  recorded_view_ = membership_.view();
  with_membership([](protocol::Membership& membership) { membership.start(Clock::now()); });
  mesh_->connect(deadline);
  mesh_->run("holdfast-" + std::to_string(number(membership_.self())));
}

// --- called by the mesh ------------------------------------------------------------------------------------------

void GroupState::on_connected(MemberId member) {
  on_event([&](protocol::Membership& membership) { membership.on_connected(member, Clock::now()); });
}

void GroupState::on_heard(MemberId member) {
  std::lock_guard const lock(mutex_);
  membership_.on_heard(member);
}

void GroupState::on_message(MemberId from, protocol::Message message) {
  if (take_question(from, message)) return;
  on_event([&](protocol::Membership& membership) { membership.on_message(from, std::move(message), Clock::now()); });
}

void GroupState::on_connection_lost(MemberId member, protocol::Evidence evidence, std::string const& what) {
  on_event(
      [&](protocol::Membership& membership) { membership.on_connection_lost(member, evidence, what, Clock::now()); });
}

void GroupState::on_timer() {
  on_event([](protocol::Membership& membership) { membership.on_timer(Clock::now()); });
}

void GroupState::on_closed() {
  std::lock_guard const lock(mutex_);
  is_drained_ = has_ended_ && mesh_->open_members().empty();
  changed_.notify_all();
}

// --- the outbox --------------------------------------------------------------------------------------------------

std::uint64_t GroupState::next_number(std::string const& name) {
  std::lock_guard const lock(mutex_);
  return numbers_[name]++;
}

void GroupState::collect() {
  if (!membership_.has_actions()) return;
  membership_.take_actions(outbox_);
  if (!mesh_) return outbox_.clear();
  if (std::exchange(is_flush_posted_, true)) return;
  mesh_->post([this] { flush(); });
}

void GroupState::flush() {
  std::vector<protocol::action::Any> actions;
  std::optional<Failure> failure;
  {
    std::lock_guard const lock(mutex_);
    actions.swap(outbox_);
    is_flush_posted_ = false;
    failure = membership_.failure();
  }
  bool is_news = false;
  for (auto const& action : actions) is_news |= act(action);
  if (failure && !std::exchange(is_failure_told_, true)) {
    // A newcomer whose id cannot be named any more gets another one; nothing has failed.
    if (!recorded_view_.members.empty()) record_failure(*failure);
    mesh_->give_up(failure->message());
    is_news = true;
  }
  if (!is_news) return;
  {
    std::lock_guard const lock(mutex_);
    changed_.notify_all();
  }
  listeners.notify();
}

bool GroupState::act(protocol::action::Any const& any) {
  namespace action = protocol::action;
  return std::visit(Overloaded{[&](action::Send const& send) {
                                 mesh_->send(send.to, send.message);
                                 return false;
                               },
                               [&](action::SetTimer const& timer) {
                                 mesh_->set_timer(timer.at);
                                 return false;
                               },
                               [&](action::Connect const& connect) {
                                 mesh_->add(connect.seat);
                                 return false;
                               },
                               [&](action::Disconnect const& disconnect) {
                                 mesh_->finish(disconnect.member);
                                 return false;
                               },
                               [&](action::Trace const& trace) {
                                 events.record(trace.event, trace.fields);
                                 return false;
                               },
                               [&](action::InstallView const& installed) {
                                 record_view(installed);
                                 return true;
                               },
                               [&](action::Parked const& parked) {
                                 log_warning("parked: " + parked.reason + "; waiting for the others, nothing is lost");
                                 events.record("parked", {{"reason", parked.reason}});
                                 return true;
                               },
                               [&](action::Unparked const&) {
                                 log_info("unparked: a quorum is back");
                                 events.record("unparked", {});
                                 return true;
                               },
                               [&](action::RequestFence const& asked) {
                                 request_fence(asked.request);
                                 return false;
                               },
                               [&](action::LearnerAppeared const& learner) {
                                 std::lock_guard const lock(mutex_);
                                 last_given_ = std::max(last_given_, learner.seat.member.id);
                                 return false;
                               },
                               [&](action::LearnerGone const& learner) {
                                 events.record("newcomer_gone", {{"member", number(learner.member)}});
                                 mesh_->dismiss(learner.member);
                                 return false;
                               },
                               [&](action::MemberLeft const& left) {
                                 left_in_order_.insert(left.member);
                                 events.record("member_left", {{"member", number(left.member)}});
                                 return true;
                               },
                               [&](action::Ended const&) {
                                 mesh_->finish_all();
                                 std::lock_guard const lock(mutex_);
                                 has_ended_ = true;
                                 is_drained_ = mesh_->open_members().empty();
                                 return true;
                               },
                               [](auto const&) { return true; }},
                    any);
}

void GroupState::request_fence(protocol::FenceRequest const& request) {
  mesh_->request_fence(request);
  // Repeated until it is granted; told once.
  if (!fences_asked_.emplace(request.view, request.suspect).second) return;
  log_warning("member " + std::to_string(number(request.suspect)) + " is silent: asking the supervisor to end it");
  events.record("fence_request", {{"view", number(request.view)}, {"member", number(request.suspect)}});
}

void GroupState::record_view(protocol::action::InstallView const& installed) {
  // MPI would wait for a lost member when it shuts down.
  for (auto const& member : recorded_view_.members)
    if (!installed.view.rank_of(member.id) && !left_in_order_.contains(member.id)) net::MpiSession::note_failure();
  recorded_view_ = installed.view;
  std::string members;
  for (auto const& member : installed.view.members)
    members += (members.empty() ? "" : ",") + std::to_string(number(member.id));
  log_info("view " + std::to_string(number(installed.view.id)) + ": members " + members);
  events.record("view", {{"view", number(installed.view.id)},
                         {"world_size", std::int64_t{installed.view.world_size()}},
                         {"members", members}});
}

void GroupState::record_failure(Failure const& failure) {
  net::MpiSession::note_failure();
  log_error("view " + std::to_string(number(failure.view)) + " failed: " + failure.message());
  std::string members;
  for (auto const id : failure.failed_members) members += (members.empty() ? "" : ",") + std::to_string(number(id));
  events.record("view_failed", {{"view", number(failure.view)},
                                {"code", std::string(name(failure.code))},
                                {"members", members},
                                {"where", failure.where},
                                {"detail", failure.detail}});
}

// --- called by the program ---------------------------------------------------------------------------------------

namespace {

Failure other_view() {
  Failure failure;
  failure.code = Errc::view_changed;
  failure.detail = "the call was for the members of an earlier view";
  return failure;
}

}  // namespace

Outcome<GroupState::Parts> GroupState::all_gather(std::string const& key, std::span<std::byte const> bytes,
                                                  Deadline deadline, std::optional<ViewId> only_in) {
  if (bytes.size() > protocol::kMaxContributionBytes || key.size() > protocol::kMaxKeyBytes)
    throw Error(Errc::bad_argument, "all_gather takes at most " + std::to_string(protocol::kMaxContributionBytes) +
                                        " bytes under a key of at most " + std::to_string(protocol::kMaxKeyBytes) +
                                        ", not " + std::to_string(bytes.size()) + " under one of " +
                                        std::to_string(key.size()) + "; bulk data goes through a Communicator");
  auto const began = Clock::now();
  auto const operation = "all_gather \"" + key + "\"";
  auto const describe = [&](Failure failure) {
    if (failure.operation.empty()) failure.operation = operation;
    failure.elapsed = Clock::now() - began;
    return fail(std::move(failure));
  };
  std::unique_lock lock(mutex_);
  if (!keys_in_use_.insert(key).second)
    throw Error(Errc::bad_argument, operation + " runs already on another thread; use one key per thread");
  struct Release {
    std::set<std::string>& keys;
    std::string const& key;
    ~Release() { keys.erase(key); }
  } const release{keys_in_use_, key};
  auto const is_other_view = [&] { return only_in && *only_in != membership_.view().id; };
  if (is_other_view()) return describe(other_view());
  auto const contributed = membership_.contribute(key, bytes, only_in.has_value());
  if (!contributed) return describe(contributed.error());
  collect();
  while (true) {
    auto taken = membership_.take_exchange(key, only_in.has_value());
    if (!taken) return describe(std::move(taken.error()));
    if (*taken) return std::move(**taken);
    if (is_other_view()) return describe(other_view());
    if (deadline.has_passed())
      return describe(pending(membership_.describe_missing_parts(key, Clock::now(), only_in.has_value())));
    changed_.wait_until(lock, deadline.instant());
  }
}

Failure GroupState::pending(std::string const& missing) const {
  Failure failure;
  failure.code = Errc::pending;
  failure.view = membership_.view().id;
  failure.where = "member " + std::to_string(number(membership_.self()));
  failure.detail = "the deadline passed waiting for " + missing + "; call again to go on waiting, with more time";
  return failure;
}

Outcome<void> GroupState::leave(Deadline deadline) {
  // The second one to leave waits for the first and finds everything done.
  std::lock_guard const one_at_a_time(leaving_);
  if (!mesh_ || !mesh_->is_running()) return {};
  HOLDFAST_ASSERT(!mesh_->is_protocol_thread(), "a listener must not leave the group or hold its last copy");
  auto const began = Clock::now();
  std::unique_lock lock(mutex_);
  membership_.leave(Clock::now());
  collect();
  // Everybody may have hung up before.
  mesh_->post([this] { on_closed(); });
  bool const is_done = changed_.wait_until(lock, deadline.instant(), [this] { return is_drained_; });
  events.record("leave", {{"rounds_committed", number(membership_.rounds_committed())},
                          {"in_good_order", is_done && !membership_.failure()}});
  lock.unlock();
  mesh_->stop();
  if (is_done) return {};
  std::vector<int> ranks;
  for (auto const member : mesh_->open_members()) ranks.push_back(static_cast<int>(member));
  Failure failure;
  failure.code = Errc::pending;
  failure.operation = "leave";
  failure.elapsed = Clock::now() - began;
  failure.detail = net::name_ranks(ranks) + " did not acknowledge the goodbye in time; this member is gone";
  return fail(std::move(failure));
}

}  // namespace holdfast
