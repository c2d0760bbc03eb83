#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "supervisor.hpp"

namespace holdfast::launch {

/// This process's environment with variables set and others removed, NAME=VALUE.
[[nodiscard]] std::vector<std::string> environment_with(std::map<std::string, std::string> const& set,
                                                        std::vector<std::string> const& removed = {});

/// Folder under TMPDIR (else /tmp) that only this user can enter; removed with all in it at the end.
class TemporaryFolder {
 public:
  /// @throws Error environment
  TemporaryFolder();
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }

 private:
  friend class LocalJob;
  explicit TemporaryFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

/// What the ranks of one job on this host are told so that they find each other.
class LocalJob {
 public:
  /// Makes the rendezvous folder.
  explicit LocalJob(int ranks);
  /// The same without touching the disk, to show what a run would do.
  [[nodiscard]] static LocalJob imagined(int ranks);

  /// The variables set for a rank, NAME=VALUE, `more` included.
  [[nodiscard]] std::vector<std::string> assignments(int rank, std::map<std::string, std::string> const& more) const;

  /// A rank of the job: label, prefix, command and environment.
  [[nodiscard]] ProcessPlan plan(int rank, std::vector<std::string> const& command,
                                 std::map<std::string, std::string> const& more) const;

 private:
  LocalJob(int ranks, TemporaryFolder folder, std::filesystem::path shown);
  [[nodiscard]] std::map<std::string, std::string> variables(int rank, std::map<std::string, std::string> more) const;

  int ranks_;
  TemporaryFolder folder_;
  std::filesystem::path rendezvous_;
  std::string id_;
};

}  // namespace holdfast::launch
