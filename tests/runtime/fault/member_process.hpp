#pragma once

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

namespace holdfast::testing {

/// Forked members that meet in a fresh directory, and what each of them wrote down at its end.
///
/// The parent starts no threads: a forked child inherits none.
class MemberProcesses : public ::testing::Test {
 protected:
  using Clock = std::chrono::steady_clock;  ///< one clock for all processes of a host

  struct Result {
    std::string code = "none";
    std::string members;
    std::int64_t at_ns = 0;
    std::string message;
  };

  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-fault-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    for (auto const pid : pids_)
      if (pid > 0) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
      }
    std::filesystem::remove_all(folder_);
  }

  Config config_of(int rank, int members) const {
    Config config;
    config.rank = rank;
    config.world_size = members;
    config.rendezvous = "file://" + (folder_ / "meet").string();
    config.log_level = "off";
    config.start_timeout = std::chrono::seconds(20);
    // What ends a member is what these tests look at; a false suspicion would be one more reason.
    config.on_loss = "end";
    config.heartbeat_timeout = std::chrono::seconds(2);
    return config;
  }

  /// Forks one process per member; each joins, runs `body` and writes the failure that it returns.
  void start(int members, std::function<Outcome<void>(Group&, int rank)> const& body,
             std::function<void(Config&, int rank)> const& adjust = {}) {
    for (int rank = 0; rank < members; ++rank) {
      auto const pid = ::fork();
      ASSERT_GE(pid, 0);
      if (pid == 0) {
        auto config = config_of(rank, members);
        if (adjust) adjust(config, rank);
        run_member(config, rank, body);
      }
      pids_.push_back(pid);
    }
  }

  [[noreturn]] void run_member(Config const& config, int rank, std::function<Outcome<void>(Group&, int)> const& body) {
    Result result;
    try {
      auto group = Group::join(config);
      auto const outcome = body(group, rank);
      if (!outcome) {
        result.code = name(outcome.error().code);
        for (auto const id : outcome.error().failed_members)
          result.members += std::to_string(static_cast<std::uint64_t>(id)) + " ";
        result.message = outcome.error().message();
      }
      result.at_ns = Clock::now().time_since_epoch().count();
      write(rank, result);
    } catch (Error const& error) {
      result.code = name(error.errc());
      result.message = error.what();
      result.at_ns = Clock::now().time_since_epoch().count();
      write(rank, result);
    }
    ::_exit(0);
  }

  void write(int rank, Result const& result) const {
    auto const path = folder_ / ("result-" + std::to_string(rank));
    std::ofstream(path.string() + ".tmp") << result.code << '\n'
                                          << result.members << '\n'
                                          << result.at_ns << '\n'
                                          << result.message << '\n';
    std::filesystem::rename(path.string() + ".tmp", path);
  }

  void touch(std::string const& name) const { std::ofstream(folder_ / name) << "x"; }
  bool wait_for(std::string const& name, std::chrono::seconds limit = std::chrono::seconds(30)) const {
    auto const deadline = Deadline::after(limit);
    while (!std::filesystem::exists(folder_ / name)) {
      if (deadline.has_passed()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  Result result_of(int rank) const {
    Result result;
    if (!wait_for("result-" + std::to_string(rank))) {
      result.message = "the member ended without a result, or hangs";
      return result;
    }
    std::ifstream file(folder_ / ("result-" + std::to_string(rank)));
    std::getline(file, result.code);
    std::getline(file, result.members);
    file >> result.at_ns >> std::ws;
    std::getline(file, result.message);
    return result;
  }

  std::int64_t send_signal(int rank, int signal) const {
    auto const now = Clock::now().time_since_epoch().count();
    ::kill(pids_[static_cast<std::size_t>(rank)], signal);
    return now;
  }

  std::filesystem::path folder_;
  std::vector<pid_t> pids_;
};

}  // namespace holdfast::testing
