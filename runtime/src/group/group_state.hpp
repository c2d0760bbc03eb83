#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/rounds.hpp>

#include "../net/mesh.hpp"
#include "../net/published_address.hpp"
#include "../net/record.hpp"
#include "../protocol/membership.hpp"
#include "listener_table.hpp"

namespace holdfast {

[[nodiscard]] protocol::MembershipOptions options_of(Config const& config);

/// What the copies of a Group share: the membership protocol, the mutex around it, and the mesh that carries it.
///
/// Every thread enters the protocol under the mutex. What it then wants done goes to the outbox in that order, and the
/// protocol thread empties it. A group of one has no mesh: nothing is to be sent, nobody is to be woken.
struct GroupState final : net::MeshListener {
  using Parts = std::vector<std::vector<std::byte>>;

  GroupState(Config given, protocol::Value first, net::Record self);
  /// A newcomer. @param self  with the id it was given as its rank
  GroupState(Config given, net::Record self);
  ~GroupState();
  GroupState(GroupState const&) = delete;
  GroupState& operator=(GroupState const&) = delete;

  /// Connects to the others and starts the protocol thread.
  void connect(std::unique_ptr<net::Mesh> mesh, Deadline deadline);
  /// The same for a newcomer, which needs a connection to one member; the others follow.
  /// @return why it was refused; empty: it was not
  [[nodiscard]] std::string connect_as_newcomer(std::unique_ptr<net::Mesh> mesh, protocol::Value const& known,
                                                Deadline deadline);
  /// Shows newcomers in this directory where to call.
  void publish_address(std::filesystem::path const& directory);

  [[nodiscard]] static bool has_entered(protocol::Membership const& membership) {
    return !membership.view().members.empty();
  }
  Outcome<void> enter(Deadline deadline);
  Outcome<void> renew(Deadline deadline);
  [[nodiscard]] std::string join_address() const;
  [[nodiscard]] static std::string agreed_key(std::string_view subject) { return "agreed: " + std::string(subject); }
  Outcome<Group::Fields> agreed(std::string const& subject, Deadline deadline);
  void publish(std::string const& key, Group::Fields const& fields);
  std::optional<Group::Fields> ask(MemberId member, std::string const& key, Deadline deadline);

  Outcome<Parts> all_gather(std::string const& key, std::span<std::byte const> bytes, Deadline deadline,
                            std::optional<ViewId> only_in = {});
  Outcome<void> leave(Deadline deadline);
  std::uint64_t next_number(std::string const& name);
  [[nodiscard]] std::uint64_t control_bytes() const { return mesh_ ? mesh_->sent_bytes() : 0; }

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
  std::optional<protocol::Message> on_knock(protocol::Knock const& knock) override;
  /// Questions beside the protocol. @return whether the message was one, or an answer
  bool take_question(MemberId from, protocol::Message const& message);
  [[nodiscard]] std::string reason_to_refuse(net::Record const& newcomer) const;

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
  [[nodiscard]] std::string address_for_newcomers() const;
  void request_fence(protocol::FenceRequest const& request);
  void record_view(protocol::action::InstallView const& installed);
  void record_failure(Failure const& failure);
  [[nodiscard]] Failure pending(std::string const& missing) const;

  net::Record record_;  ///< of this member
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
  std::map<std::string, Group::Fields> published_;
  struct Answer {
    bool is_known = false;
    Group::Fields fields;
  };
  std::map<std::pair<MemberId, std::string>, std::optional<Answer>> answers_;  ///< to open questions
  MemberId last_given_{};  ///< highest id that a newcomer has or was given, as far as this member knows
  std::optional<net::PublishedAddress> published_address_;
  std::mutex leaving_;
  std::unique_ptr<net::Mesh> mesh_;
};

}  // namespace holdfast
