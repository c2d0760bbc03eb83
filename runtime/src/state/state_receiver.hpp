#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/group.hpp>

#include "round_record.hpp"
#include "state_link.hpp"

namespace holdfast::state {

/// A newcomer's side of a StateDonor: takes in the copy of the state and the results of later rounds on a thread of its
/// own, while the program replays.
///
/// Threads: functions from one thread.
class StateReceiver {
 public:
  /// @param where  what the donor has published
  /// @return member_lost when it cannot be reached
  [[nodiscard]] static Outcome<std::unique_ptr<StateReceiver>> connect(Group const& group, Group::Fields const& where,
                                                                       Deadline deadline);
  StateReceiver(Group const& group, std::unique_ptr<StateLink> link);
  ~StateReceiver();
  StateReceiver(StateReceiver const&) = delete;
  StateReceiver& operator=(StateReceiver const&) = delete;

  /// The whole copy, once it is here. @return pending at the deadline
  [[nodiscard]] Outcome<StateCopy> take_copy(Deadline deadline);
  /// The next round that is here in full; null: none. @return what ended the transfer, once nothing is left
  [[nodiscard]] Outcome<std::shared_ptr<RoundRecord const>> next_round();
  /// Its results have been replayed and let go.
  void replayed(RoundRecord const& record);
  void ask_digest();
  [[nodiscard]] std::optional<std::pair<Positions, Digest>> take_digest();
  /// Returns when something arrived, `wake` was called, or at the deadline.
  void wait(Deadline deadline);
  void wake();

  [[nodiscard]] std::uint64_t received_bytes() const { return received_bytes_.load(); }

 private:
  void run();
  Outcome<void> on_frame(Frame const& frame, std::span<std::byte const> body);
  Outcome<void> read_manifest();

  Group const& group_;
  std::unique_ptr<StateLink> link_;
  std::atomic<std::uint64_t> received_bytes_{0};

  // Of the receiving thread.
  std::vector<std::byte> manifest_;
  bool has_manifest_ = false;
  StateCopy copy_;
  std::vector<std::uint64_t> sizes_;
  std::size_t part_ = 0;
  std::shared_ptr<RoundRecord> open_round_;
  std::size_t open_results_ = 0;
  std::uint64_t open_offset_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_copy_here_ = false;
  bool has_news_ = false;
  std::deque<std::shared_ptr<RoundRecord const>> rounds_;
  std::deque<Frame> to_send_;
  std::optional<std::pair<Positions, Digest>> digest_;
  std::optional<Failure> failure_;
  /// Memory of results that were let go, to be used again: fresh pages cost more than the copy.
  std::multimap<std::uint64_t, std::shared_ptr<std::byte[]>> idle_;
  std::atomic<bool> is_stopping_{false};
  std::jthread thread_;  // last
};

}  // namespace holdfast::state
