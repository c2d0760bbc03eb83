#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace holdfast::fault {

/// What members show the test, and the test tells them; in a file that all map.
struct Board {
  struct Seat {
    std::atomic<std::int64_t> pid{0};
    std::atomic<std::uint64_t> round{0};  ///< last committed
    std::atomic<std::uint64_t> view{0};   ///< of that round
    std::atomic<std::uint64_t> world_size{0};
    std::atomic<std::uint64_t> wrong{0};  ///< rounds with a wrong byte
    std::atomic<std::uint64_t> hash{0};
    std::atomic<std::int32_t> ended{0};                  ///< 1 + reason (Errc, 0 for none)
    std::array<std::atomic<std::int64_t>, 8> numbers{};  ///< what the test wants
  };
  std::array<Seat, 16> seats;
  std::atomic<std::uint64_t> is_struck{0};
  std::atomic<std::uint64_t> stop_after{0};  ///< 0: not yet
};

/// Members that are this program again, started as `member FABRIC FOLDER SEAT`; under mpirun SEAT is "mpi" and means
/// the rank. Whatever is left of them ends with this object.
class MemberJob {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param mpirun  command and flags, for fabric mpi
  MemberJob(std::string const& fabric, int members, std::map<std::string, std::string> const& variables,
            std::string const& mpirun)
      : members_(members) {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-fault-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
    std::filesystem::create_directory(folder_ / "meeting");
    board_ = map_board(folder_, true);
    std::string const program = std::filesystem::read_symlink("/proc/self/exe");
    if (fabric == "mpi") {
      std::vector<std::string> command;
      std::istringstream words(mpirun);
      for (std::string word; words >> word;) command.push_back(word);
      command.insert(command.end(), {"-n", std::to_string(members), program, "member", fabric, folder_, "mpi"});
      start(command, variables);
      return;
    }
    for (int rank = 0; rank < members; ++rank) {
      auto own = variables;
      own["HOLDFAST_RANK"] = std::to_string(rank);
      own["HOLDFAST_WORLD_SIZE"] = std::to_string(members);
      own["HOLDFAST_RENDEZVOUS"] = "file://" + (folder_ / "meeting").string();
      start({program, "member", fabric, folder_, std::to_string(rank)}, own);
    }
  }
  ~MemberJob() {
    for (int rank = 0; rank < members_; ++rank)
      if (seat(rank).ended.load() == 0) signal(rank, SIGKILL);
    auto const until = Clock::now() + std::chrono::seconds(5);
    for (pid_t const child : children_)
      while (::waitpid(child, nullptr, WNOHANG) == 0) {
        if (Clock::now() > until) ::kill(child, SIGKILL);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    ::munmap(board_, sizeof(Board));
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  MemberJob(MemberJob const&) = delete;
  MemberJob& operator=(MemberJob const&) = delete;

  [[nodiscard]] Board& board() const { return *board_; }
  [[nodiscard]] Board::Seat& seat(int rank) const { return board_->seats[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::filesystem::path const& folder() const { return folder_; }

  void signal(int rank, int number) const {
    auto const pid = static_cast<pid_t>(seat(rank).pid.load());
    if (pid > 1) ::kill(pid, number);
  }

  template <typename Condition>
  [[nodiscard]] static bool happens_within(Clock::duration limit, Condition const& condition) {
    auto const until = Clock::now() + limit;
    while (!condition()) {
      if (Clock::now() > until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  [[nodiscard]] static Board* map_board(std::filesystem::path const& folder, bool creates) {
    int const file = ::open((folder / "board").c_str(), O_RDWR | O_CLOEXEC | (creates ? O_CREAT | O_EXCL : 0), 0600);
    void* address = MAP_FAILED;
    if (file >= 0 && (!creates || ::ftruncate(file, sizeof(Board)) == 0))
      address = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) ::close(file);
    if (address == MAP_FAILED) throw std::runtime_error("cannot share the board");
    return static_cast<Board*>(address);
  }

  /// Of the member that was started with this word.
  [[nodiscard]] static std::size_t seat_of(std::string_view word) {
    if (word != "mpi") return std::stoul(std::string(word));
    char const* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return std::stoul(rank != nullptr ? rank : "0");
  }

 private:
  void start(std::vector<std::string> const& command, std::map<std::string, std::string> const& variables) {
    std::string const log = folder_ / ("log." + std::to_string(children_.size()));
    pid_t const child = ::fork();
    if (child < 0) throw std::runtime_error("cannot start a process");
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (auto const& [key, value] : variables) ::setenv(key.c_str(), value.c_str(), 1);
      int const file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(file, STDOUT_FILENO);
      ::dup2(file, STDERR_FILENO);
      std::vector<char*> arguments;
      for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    children_.push_back(child);
  }

  int members_;
  std::filesystem::path folder_;
  Board* board_ = nullptr;
  std::vector<pid_t> children_;
};

}  // namespace holdfast::fault
