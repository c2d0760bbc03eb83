#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "child_process.hpp"

namespace holdfast::launch {

/// This process's environment with variables set and others removed, NAME=VALUE.
[[nodiscard]] std::vector<std::string> environment_with(std::map<std::string, std::string> const& set,
                                                        std::vector<std::string> const& removed = {});

/// Sixteen hexadecimal digits.
[[nodiscard]] std::string random_id();

/// Folder under TMPDIR (else /tmp) that only this user can enter; removed with all in it at the end.
class TemporaryFolder {
 public:
  /// @throws Error environment
  TemporaryFolder();
  [[nodiscard]] static TemporaryFolder below(std::filesystem::path const& parent);
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }

 private:
  friend class LocalJob;
  explicit TemporaryFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

/// Where a process stands in its job.
struct PlaceInJob {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_world_size = 1;
};

/// A rank of a job: label, prefix, command and environment; as a newcomer it looks for a running group instead.
[[nodiscard]] ProcessPlan plan_rank(PlaceInJob const& place, std::vector<std::string> const& command,
                                    std::map<std::string, std::string> const& variables, std::string const& rendezvous);

/// From its next start as a newcomer it calls there.
void set_join(ProcessPlan& plan, std::string const& join);

/// What the ranks of one job on this host are told so that they find each other.
class LocalJob {
 public:
  /// Makes the rendezvous folder.
  explicit LocalJob(int ranks);
  /// The same without touching the disk, to show what a run would do.
  [[nodiscard]] static LocalJob imagined(int ranks);

  /// Where the ranks meet, as the key `join` of a later one takes it too.
  [[nodiscard]] std::string rendezvous() const;

  /// The variables set for a rank, NAME=VALUE, `more` included.
  [[nodiscard]] std::vector<std::string> assignments(int rank, std::map<std::string, std::string> more) const;

  [[nodiscard]] std::filesystem::path const& folder() const { return folder_.path(); }

  /// As plan_rank.
  [[nodiscard]] ProcessPlan plan(int rank, std::vector<std::string> const& command,
                                 std::map<std::string, std::string> more) const;

 private:
  LocalJob(int ranks, TemporaryFolder folder, std::filesystem::path shown);
  [[nodiscard]] PlaceInJob place(int rank) const { return {rank, ranks_, rank, ranks_}; }

  int ranks_;
  TemporaryFolder folder_;
  std::filesystem::path rendezvous_;
  std::string id_;
};

}  // namespace holdfast::launch
