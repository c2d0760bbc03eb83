#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/rounds.hpp>

#include "../net/mesh.hpp"
#include "../protocol/membership.hpp"
#include "listener_table.hpp"

namespace holdfast {

/// What the copies of a Group share: the membership protocol, the mutex around it, and the mesh that carries it.
///
/// Every thread enters the protocol under the mutex. What it then wants done goes to the outbox in that order, and the
/// protocol thread empties it. A group of one has no mesh: nothing is to be sent, nobody is to be woken.
struct GroupState final : net::MeshListener {
  using Parts = std::vector<std::vector<std::byte>>;

  GroupState(Config given, protocol::Value first, MemberId self);
  ~GroupState();
  GroupState(GroupState const&) = delete;
  GroupState& operator=(GroupState const&) = delete;

  /// Connects to the others and starts the protocol thread.
  void connect(std::unique_ptr<net::Mesh> mesh, Deadline deadline);

  Outcome<Parts> all_gather(std::string const& key, std::span<std::byte const> bytes, Deadline deadline,
                            std::optional<ViewId> only_in = {});
  Outcome<void> leave(Deadline deadline);
  std::uint64_t next_number(std::string const& name);

  /// Runs `use(membership)` under the mutex and has the protocol thread do what comes of it.
  template <typename Use>
  auto with_membership(Use use) {
    std::lock_guard const lock(mutex_);
    struct Collector {  // Collects on the way out of an exception too.
      GroupState& state;
      ~Collector() { state.collect(); }
    } const collector{*this};
    return use(membership_);
  }
  template <typename Use>
  auto read_membership(Use use) const {
    std::lock_guard const lock(mutex_);
    return use(membership_);
  }

  Config const config;
  EventLog events;
  ListenerTable listeners;
  Rounds rounds;  ///< refers back to this object without owning it

 private:
  void on_connected(MemberId member) override;
  void on_heard(MemberId member) override;
  void on_message(MemberId from, protocol::Message message) override;
  void on_connection_lost(MemberId member, protocol::Evidence evidence, std::string const& what) override;
  void on_closed() override;
  void on_timer() override;

  /// Tells the protocol of something on the protocol thread, and does what comes of it.
  template <typename Event>
  void on_event(Event event) {
    {
      std::lock_guard const lock(mutex_);
      event(membership_);
      membership_.take_actions(outbox_);
    }
    flush();
  }
  /// Moves the protocol's actions to the outbox and asks the protocol thread to empty it. Under the mutex.
  void collect();
  /// Does what the outbox says. On the protocol thread, without the mutex.
  void flush();
  /// @return whether those who wait should look again
  bool act(protocol::action::Any const& action);
  void request_fence(protocol::FenceRequest const& request);
  void record_view(protocol::action::InstallView const& installed);
  void record_failure(Failure const& failure);
  [[nodiscard]] Failure pending(std::string const& missing) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  protocol::Membership membership_;
  std::vector<protocol::action::Any> outbox_;
  bool is_flush_posted_ = false;
  bool has_ended_ = false;   ///< the protocol wants nothing more
  bool is_drained_ = false;  ///< every connection that can still end in good order has ended
  bool is_failure_told_ = false;
  View recorded_view_;  ///< of the protocol thread, as the next
  std::set<MemberId> left_in_order_{};
  std::set<std::pair<ViewId, MemberId>> fences_asked_;
  std::set<std::string> keys_in_use_;
  std::map<std::string, std::uint64_t> numbers_;
  std::mutex leaving_;
  std::unique_ptr<net::Mesh> mesh_;
};

}  // namespace holdfast
