#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace holdfast::launch {

/// What the members of a fault measurement show the one who injects the faults; in a file that all map.
struct FaultBoard {
  static constexpr std::size_t kMostMembers = 32;
  static constexpr std::size_t kMostViews = 256;
  static constexpr std::size_t kSteadyRounds = 16;

  struct Member {
    std::atomic<std::int64_t> pid{0};
    std::atomic<std::uint64_t> commits{0};
    std::atomic<std::uint64_t> last_round{0};
    std::atomic<std::uint64_t> view{0};   ///< of the last committed round
    std::atomic<std::uint64_t> wrong{0};  ///< rounds whose result was not the expected one
    std::atomic<std::int32_t> ended{0};   ///< 1 + exit reason (Errc, 0 for none)
    /// Instant of the first committed round of a view, nanoseconds of the monotonic clock; 0: none yet.
    std::array<std::atomic<std::int64_t>, kMostViews> first_commit{};
    std::array<std::atomic<std::int64_t>, kSteadyRounds> round_ns{};  ///< durations, by round modulo
    std::atomic<std::int64_t> longest_gap_ns{0};  ///< between two commits, since it was last set to 0
  };
  std::atomic<std::uint64_t> stop_after{~0ULL};  ///< members end once they committed this round
  std::array<Member, kMostMembers> members;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

/// In the place of a member's seat: its rank of mpirun.
inline constexpr std::string_view kSeatOfMpi = "mpi";

/// What each member is told.
struct FaultPlan {
  std::string fabric = "shm";
  std::uint64_t bytes = 0;
  std::uint64_t state_bytes = 0;  ///< registered state that newcomers fetch; 0: nobody joins
};

/// The board in a file of this process's making (`creates`) or of another's.
class MappedBoard {
 public:
  /// @throws Error environment
  MappedBoard(std::filesystem::path const& file, bool creates);
  MappedBoard(MappedBoard const&) = delete;
  MappedBoard& operator=(MappedBoard const&) = delete;
  ~MappedBoard();
  [[nodiscard]] FaultBoard& operator*() const { return *board_; }
  [[nodiscard]] FaultBoard* operator->() const { return board_; }

 private:
  FaultBoard* board_;
};

/// The clock of the board.
[[nodiscard]] std::int64_t monotonic_ns();

}  // namespace holdfast::launch
