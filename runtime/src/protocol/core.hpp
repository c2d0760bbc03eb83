#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/outcome.hpp>
#include <holdfast/runtime/progress.hpp>
#include <holdfast/runtime/rounds.hpp>
#include <holdfast/runtime/view.hpp>

#include "action.hpp"
#include "exchange_table.hpp"
#include "failure_detector.hpp"
#include "message.hpp"
#include "round_ledger.hpp"

namespace holdfast::protocol {

/// The membership protocol of one member: events in, actions out. No sockets, threads or clocks, so the same code runs
/// on sockets and in a simulation with virtual time.
///
/// Membership is fixed: the first loss freezes the view and every member ends with the same failure. A change of view
/// extends this at one place: where fail_view() freezes, a proposer would open a ballot, and is_frozen() would also be
/// true between a promise and the next view.
/// Threads: not synchronised.
class Core {
 public:
  struct Options {
    std::chrono::nanoseconds heartbeat_period{0};
    std::chrono::nanoseconds heartbeat_timeout{0};
  };
  Core(View view, int self, Options options);

  /// Begins heartbeats.
  void start(Instant now);

  // Events from the network.
  void on_connected(int rank);
  void on_message(int rank, Message message, Instant now);
  enum class Evidence { process_ended, connection_lost, protocol_violation };
  void on_connection_lost(int rank, Evidence evidence, std::string const& what, Instant now);
  void on_timer(Instant now);

  // Events from this member.
  [[nodiscard]] StreamId open_stream(std::string_view name);
  Outcome<void> hold(RoundId round, Digest digest, std::function<void()> const& publish);
  void count_ready(RoundId round, int rank, Digest digest);
  Outcome<void> contribute(std::string const& key, std::span<std::byte const> bytes);
  void suspect(int rank, std::string_view evidence, Instant now);
  void report_progress(Activity activity, RoundId round, Instant now);
  void leave();

  // State.
  [[nodiscard]] View const& view() const { return view_; }
  [[nodiscard]] int self() const { return self_; }
  [[nodiscard]] std::optional<Failure> const& failure() const { return failure_; }
  /// A frozen member sends no READY and completes no result.
  [[nodiscard]] bool is_frozen() const { return failure_.has_value(); }
  [[nodiscard]] Outcome<bool> is_committed(RoundId round) const;
  /// The parts of the open exchange of `key` once all are here; nothing while some are missing.
  Outcome<std::optional<std::vector<std::vector<std::byte>>>> take_exchange(std::string const& key);
  /// Who has not given a part of the open exchange, and what they are doing.
  [[nodiscard]] std::string describe_missing_parts(std::string const& key, Instant now) const;
  [[nodiscard]] std::string describe_progress(int rank, Instant now) const;
  [[nodiscard]] std::string describe_round(RoundId round) const;
  [[nodiscard]] std::string describe_member(int rank) const;
  [[nodiscard]] std::uint64_t committed(StreamId stream) const { return ledger_.committed(stream); }
  [[nodiscard]] std::uint64_t rounds_committed() const { return ledger_.rounds_committed(); }

  [[nodiscard]] bool has_actions() const { return !actions_.empty(); }
  /// What to do, in this order. Appends to `out`.
  void take_actions(std::vector<Action>& out);

 private:
  void receive(int rank, Heartbeat const& heartbeat, Instant now);
  void receive(int rank, Ready const& ready);
  void receive(int rank, Contribution&& contribution);
  void receive(int rank, ViewFailed&& failed);
  void receive(int rank, Leave const& leave);

  void count(RoundId round, int rank, Digest digest, bool is_by_message);
  void broadcast(Message const& message);
  void fail_view(Failure failure);
  void fail_member_lost(std::vector<int> const& ranks, std::string where, std::string detail);
  void fail_protocol_violation(int rank, std::string const& what);
  [[nodiscard]] Failure own_absence() const;
  [[nodiscard]] std::optional<Failure> blame_leaver(RoundId round) const;

  View view_;
  int self_;
  Options options_;
  RoundLedger ledger_;
  ExchangeTable exchanges_;
  FailureDetector detector_;
  std::map<StreamId, std::string> stream_names_;
  std::optional<Failure> failure_;
  std::vector<bool> has_left_;

  struct Reported {
    Progress progress;
    Instant at{};
  };
  std::vector<Reported> reported_;  ///< by rank; our own entry is what the next heartbeat says

  std::vector<Action> actions_;
};

}  // namespace holdfast::protocol
