#pragma once

#include <filesystem>
#include <optional>

#include "local_ranks.hpp"

namespace holdfast::launch {

/// Where the ranks of a job reach their supervisor: in the job's folder, or, where that path is longer than a socket's
/// may be, in a folder of its own.
class SupervisorSocket {
 public:
  /// @throws Error environment
  explicit SupervisorSocket(std::filesystem::path const& folder) {
    constexpr std::size_t kLongestPath = 100;
    path_ = folder / "supervisor";
    if (path_.string().size() <= kLongestPath) return;
    own_.emplace(TemporaryFolder::below("/tmp"));
    path_ = own_->path() / "supervisor";
  }
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }

 private:
  std::optional<TemporaryFolder> own_;
  std::filesystem::path path_;
};

}  // namespace holdfast::launch
