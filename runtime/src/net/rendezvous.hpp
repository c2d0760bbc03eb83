#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/runtime/deadline.hpp>

#include "launcher.hpp"
#include "record.hpp"
#include "security/credentials.hpp"

/// All-gathers of the members' records before there are connections.
namespace holdfast::net {

/// A shared directory: each member writes its own record under a temporary name, renames it, and reads the others'.
class FileRendezvous {
 public:
  /// @throws Error environment when the directory cannot be made or written
  FileRendezvous(std::filesystem::path directory, Record mine);

  /// The records of all ranks, in rank order. Records of other jobs and of processes that ended are ignored. Returns
  /// only when all have them: one that finds a difference and ends must not look as if it had never come.
  /// When one says another world size, those that are here do not wait for the rest: the difference is to be named.
  /// @throws Error start_failed naming the ranks that did not show up
  [[nodiscard]] std::vector<Record> wait_for_all(Deadline deadline) const;

  /// Removes what this member wrote. Only once it is connected to all, so that all have read it.
  void clean_up() const;

 private:
  [[nodiscard]] std::filesystem::path path_of(int rank) const;
  [[nodiscard]] std::filesystem::path mark_of(int rank) const;
  [[nodiscard]] std::optional<Record> find(int rank) const;
  std::filesystem::path directory_;
  Record mine_;
};

/// Rank 0 listens at host:port, collects the records and hands out all of them.
/// @throws Error start_failed naming the ranks that did not show up, or environment when rank 0 cannot listen there
[[nodiscard]] std::vector<Record> meet_by_tcp(std::string const& host, std::string const& port, Record const& mine,
                                              security::Credentials const& credentials, Deadline deadline);

/// "ranks 2, 5 and 6".
[[nodiscard]] std::string name_ranks(std::vector<int> const& ranks);

}  // namespace holdfast::net
