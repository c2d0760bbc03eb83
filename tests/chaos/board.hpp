#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace holdfast::chaos {

/// What the members of a job show the one who disturbs them; in a file that all map.
struct Board {
  static constexpr std::size_t kSeats = 64;
  static constexpr std::size_t kPorts = 65'536;

  struct Seat {
    std::atomic<std::int64_t> pid{0};
    std::atomic<std::uint64_t> member{0};   ///< 1 + id
    std::atomic<std::uint64_t> round{0};    ///< last committed
    std::atomic<std::uint64_t> view{0};     ///< newest one installed
    std::atomic<std::uint64_t> members{0};  ///< of that view, bit by id; below 64 in a job this short
    std::atomic<std::int32_t> ended{0};     ///< 1 + reason (Errc, 0 for none)
  };
  std::atomic<std::uint64_t> stop_after{~0ULL};  ///< members end once they committed this round
  std::array<Seat, kSeats> seats;
  std::array<std::atomic<std::uint8_t>, kPorts> port_owner;  ///< 1 + seat that listens there
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

/// The board in a file of this process's making (`creates`) or of another's. Throws std::system_error.
class MappedBoard {
 public:
  MappedBoard(std::filesystem::path const& file, bool creates);
  MappedBoard(MappedBoard const&) = delete;
  MappedBoard& operator=(MappedBoard const&) = delete;
  ~MappedBoard();
  [[nodiscard]] Board& operator*() const { return *board_; }
  [[nodiscard]] Board* operator->() const { return board_; }

 private:
  Board* board_;
};

}  // namespace holdfast::chaos
