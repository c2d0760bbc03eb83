#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <holdfast/runtime/view.hpp>

namespace holdfast {

/// Where the members of one host report to the program that started them: a Unix socket that only this user can reach.
///
/// It watches every process that reports, and tells the members of its job when one has ended: a death certificate,
/// given after the end was observed. Where it `fences`, it also ends a process that members accuse: at once when the
/// process is stopped; when it could run, and may only be slow, after kFencePatience of uninterrupted accusation.
/// Members are told apart by job id and member id, so one process may be a member of several groups.
/// Threads: none of its own, and not synchronised. serve() never blocks.
class SupervisorPort {
 public:
  static constexpr std::chrono::milliseconds kFencePatience{2'000};

  enum class Change {
    reported,   ///< a process says that it is this member
    reachable,  ///< and newcomers may call it at `detail`, which the key `join` takes
    fenced,    ///< it was sent SIGKILL, for the reason in `detail`
    ended,     ///< its process was seen to end
  };
  struct Event {
    Change change{};
    std::string job;
    MemberId member{};
    std::int64_t pid = 0;
    MemberId accuser{};  ///< of one that was fenced
    ViewId view{};       ///< of the accusation
    std::string detail;
  };

  /// Listens at `socket`, whose folder must be closed to other users.
  /// @throws Error environment, also when the path is longer than the system allows (some 100 bytes)
  SupervisorPort(std::filesystem::path const& socket, bool fences);
  ~SupervisorPort();
  SupervisorPort(SupervisorPort const&) = delete;
  SupervisorPort& operator=(SupervisorPort const&) = delete;

  /// For HOLDFAST_SUPERVISOR.
  [[nodiscard]] std::string address() const;
  /// Readable whenever serve() has something to do.
  [[nodiscard]] int descriptor() const;
  /// Does what there is to do, and says what came of it.
  std::vector<Event> serve();
  /// Passes on a certificate for a member that another supervisor saw end.
  void certify(std::string const& job, MemberId member);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast
