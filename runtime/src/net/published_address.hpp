#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "record.hpp"

namespace holdfast::net {

/// A member's own file in a directory that members and newcomers share, for as long as this object lives. What a
/// process that was killed leaves behind is told from a member's by its start time, or by nobody answering.
class PublishedAddress {
 public:
  /// @throws Error environment when the directory cannot be made or written
  PublishedAddress(std::filesystem::path const& directory, Record mine);
  PublishedAddress(PublishedAddress&& other) noexcept;
  PublishedAddress& operator=(PublishedAddress&& other) noexcept;
  ~PublishedAddress();

 private:
  std::filesystem::path path_;
  Record mine_;
};

/// Of the members of this job that may still be there; the lowest id first.
[[nodiscard]] std::vector<Record> published_addresses(std::filesystem::path const& directory,
                                                      std::string const& job_id);

}  // namespace holdfast::net
