#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <holdfast/runtime/deadline.hpp>
#include <holdfast/runtime/group.hpp>

#include "round_record.hpp"
#include "state_link.hpp"

namespace holdfast::state {

/// Sends a member's state, and then the results of its rounds, to newcomers that ask for it, each on a thread and a
/// connection of its own.
///
/// Threads: give_copy, give_digest and hold_up from the training thread; add from any one thread.
class StateDonor {
 public:
  using Sizes = std::vector<std::pair<std::string, std::uint64_t>>;
  /// Listens, and publishes where.
  /// @param sizes  of the parts that a copy will have, as far as they are known
  StateDonor(Group group, Sizes sizes);
  ~StateDonor();
  StateDonor(StateDonor const&) = delete;
  StateDonor& operator=(StateDonor const&) = delete;

  /// Under which a donor publishes where it listens.
  static constexpr std::string_view kKey = "state donor";

  [[nodiscard]] bool is_copy_wanted() const { return copies_wanted_.load() > 0; }
  [[nodiscard]] bool is_digest_wanted() const { return digests_wanted_.load() > 0; }
  [[nodiscard]] bool wants_rounds() const { return followers_.load() > 0; }

  /// Memory for a copy, made when a newcomer asked and touched by then.
  [[nodiscard]] StateSnapshot take_spare();
  /// To those who wait for one. From here on they get the rounds too.
  void give_copy(std::shared_ptr<StateCopy const> const& copy);
  void give_digest(Positions const& positions, Digest digest);
  void add(std::shared_ptr<RoundRecord const> const& record);
  /// Waits, for at most so long, while a newcomer lacks more than may be kept for it; one that lacks twice as much is
  /// given up.
  void hold_up(std::chrono::nanoseconds at_most);

 private:
  struct Session;
  void accept();
  void serve(Session& session);
  void prepare_spare();
  Outcome<void> converse(Session& session);
  Outcome<void> on_frame(Session& session, Frame const& frame, std::span<std::byte const> body);
  bool push_more(Session& session);
  void end(Session& session, std::string const& reason);
  [[nodiscard]] bool is_stopping() const { return is_stopping_.load(); }

  Group group_;
  Sizes sizes_;
  net::security::Credentials credentials_;
  std::uint64_t token_ = 0;
  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<std::unique_ptr<Session>> sessions_;
  StateSnapshot spare_;
  std::atomic<int> copies_wanted_{0};
  std::atomic<int> digests_wanted_{0};
  std::atomic<int> followers_{0};
  std::atomic<bool> is_stopping_{false};
  std::jthread thread_;  // last: it uses the rest
};

}  // namespace holdfast::state
