#include "group_state.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <holdfast/runtime/assert.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "../net/mpi_session.hpp"
#include "../net/rendezvous.hpp"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Clock = Deadline::Clock;

// Long enough for live members to answer a goodbye, short enough that nobody takes it for a hang.
constexpr auto kDestructorLimit = 1s;

}  // namespace

GroupState::GroupState(Config given, View view, int self)
    : config(std::move(given)),
      events(config.event_log, self),
      rounds(std::shared_ptr<GroupState>(std::shared_ptr<void>(), this)),
      core_(std::move(view), self, {config.heartbeat_period, config.heartbeat_timeout}) {}

GroupState::~GroupState() {
  auto const left = leave(Deadline::after(kDestructorLimit));
  if (!left) log_debug(left.error().message());
}

void GroupState::connect(std::unique_ptr<net::Mesh> mesh, std::vector<net::Record> records, Deadline deadline) {
  mesh->prepare(std::move(records), core_.self(), *this);
  mesh_ = std::move(mesh);
  with_core([](protocol::Core& core) { core.start(Clock::now()); });
  mesh_->connect(deadline);
  mesh_->run("holdfast-" + std::to_string(core_.self()));
}

// --- called by the mesh ------------------------------------------------------------------------------------------

void GroupState::on_connected(int rank) {
  std::lock_guard const lock(mutex_);
  core_.on_connected(rank);
}

void GroupState::on_message(int rank, protocol::Message message) {
  {
    std::lock_guard const lock(mutex_);
    core_.on_message(rank, std::move(message), Clock::now());
    core_.take_actions(outbox_);
  }
  flush();
}

void GroupState::on_connection_lost(int rank, protocol::Core::Evidence evidence, std::string const& what) {
  {
    std::lock_guard const lock(mutex_);
    core_.on_connection_lost(rank, evidence, what, Clock::now());
    core_.take_actions(outbox_);
  }
  flush();
}

void GroupState::on_timer() {
  {
    std::lock_guard const lock(mutex_);
    core_.on_timer(Clock::now());
    core_.take_actions(outbox_);
  }
  flush();
}

void GroupState::on_closed() {
  std::lock_guard const lock(mutex_);
  is_drained_ = is_drained();
  changed_.notify_all();
}

// --- the outbox --------------------------------------------------------------------------------------------------

std::uint64_t GroupState::next_number(std::string const& name) {
  std::lock_guard const lock(mutex_);
  return numbers_[name]++;
}

void GroupState::collect() {
  if (!core_.has_actions()) return;
  core_.take_actions(outbox_);
  if (!mesh_) return outbox_.clear();
  if (std::exchange(is_flush_posted_, true)) return;
  mesh_->post([this] { flush(); });
}

void GroupState::flush() {
  std::vector<protocol::Action> actions;
  std::optional<Failure> failure;
  {
    std::lock_guard const lock(mutex_);
    actions.swap(outbox_);
    is_flush_posted_ = false;
    failure = core_.failure();
  }
  bool is_news = false;
  for (auto const& action : actions) {
    if (auto const* const send = std::get_if<protocol::Send>(&action)) {
      mesh_->send(send->rank, send->message);
    } else if (auto const* const timer = std::get_if<protocol::SetTimer>(&action)) {
      mesh_->set_timer(timer->at);
    } else if (auto const* const disconnect = std::get_if<protocol::Disconnect>(&action)) {
      mesh_->finish(disconnect->rank);
    } else {
      is_news = true;
      if (std::holds_alternative<protocol::ViewHasFailed>(action)) {
        record_failure(*failure);
        mesh_->give_up(failure->message());
      }
      if (auto const* const left = std::get_if<protocol::MemberLeft>(&action))
        events.record("member_left", {{"member_rank", std::int64_t{left->rank}}});
    }
  }
  if (!is_news) return;
  {
    std::lock_guard const lock(mutex_);
    changed_.notify_all();
  }
  listeners.notify();
}

void GroupState::record_failure(Failure const& failure) {
  net::MpiSession::note_failure();
  log_error("view " + std::to_string(static_cast<std::uint64_t>(failure.view)) + " failed: " + failure.message());
  std::string members;
  for (auto const id : failure.failed_members)
    members += (members.empty() ? "" : ",") + std::to_string(static_cast<std::uint64_t>(id));
  events.record("view_failed", {{"view", static_cast<std::int64_t>(failure.view)},
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
  auto const is_other_view = [&] { return only_in && *only_in != core_.view().id; };
  if (is_other_view()) return describe(other_view());
  auto const contributed = core_.contribute(key, bytes);
  if (!contributed) return describe(contributed.error());
  collect();
  while (true) {
    auto taken = core_.take_exchange(key);
    if (!taken) return describe(std::move(taken.error()));
    if (*taken) return std::move(**taken);
    if (is_other_view()) return describe(other_view());
    if (deadline.has_passed()) return describe(pending(core_.describe_missing_parts(key, Clock::now())));
    changed_.wait_until(lock, deadline.instant());
  }
}

Failure GroupState::pending(std::string const& missing) const {
  Failure failure;
  failure.code = Errc::pending;
  failure.view = core_.view().id;
  failure.where = "rank " + std::to_string(core_.self());
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
  core_.leave();
  collect();
  mesh_->post([this] { on_closed(); });  // Everybody may have hung up before.
  bool const is_done = changed_.wait_until(lock, deadline.instant(), [this] { return is_drained_; });
  events.record("leave", {{"rounds_committed", static_cast<std::int64_t>(core_.rounds_committed())},
                          {"in_good_order", is_done && !core_.failure()}});
  lock.unlock();
  mesh_->stop();
  if (is_done) return {};
  Failure failure;
  failure.code = Errc::pending;
  failure.operation = "leave";
  failure.elapsed = Clock::now() - began;
  failure.detail =
      net::name_ranks(mesh_->open_ranks()) + " did not acknowledge the goodbye in time; this member is gone";
  return fail(std::move(failure));
}

bool GroupState::is_drained() const {
  auto const& failure = core_.failure();
  auto const open = mesh_->open_ranks();
  return std::all_of(open.begin(), open.end(), [&](int rank) {
    if (!failure) return false;
    auto const& lost = failure->failed_members;
    return std::find(lost.begin(), lost.end(), core_.view().members[static_cast<std::size_t>(rank)].id) != lost.end();
  });
}

}  // namespace holdfast
