#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "../text.hpp"
#include "record_file.hpp"
#include "rendezvous.hpp"
#include "wire.hpp"

namespace holdfast::net {
namespace {

namespace fs = std::filesystem;

// Short beside process start-up, long beside a file system call on a network mount.
constexpr auto kPollPeriod = std::chrono::milliseconds(5);
std::string file_name(std::string const& job_id, int rank) {
  return record_file_prefix(job_id) + "-rank-" + std::to_string(rank);
}

std::vector<Record> those_found(std::vector<std::optional<Record>> found) {
  std::vector<Record> records;
  for (auto& record : found)
    if (record) records.push_back(std::move(*record));
  return records;
}

}  // namespace

std::string name_ranks(std::vector<int> const& ranks) {
  std::vector<std::string> names;
  for (int const rank : ranks) names.push_back(std::to_string(rank));
  return (ranks.size() == 1 ? "rank " : "ranks ") + text::list(names);
}

FileRendezvous::FileRendezvous(fs::path directory, Record mine)
    : directory_(std::move(directory)), mine_(std::move(mine)) {
  std::error_code error;
  fs::create_directories(directory_, error);
  write_whole_file(path_of(mine_.rank), encode(mine_), mine_.token);
}

fs::path FileRendezvous::path_of(int rank) const {
  return directory_ / file_name(mine_.job_id, rank);
}

/// Says that a rank has read all records; holds its token, so a mark of an earlier start says nothing.
fs::path FileRendezvous::mark_of(int rank) const {
  return path_of(rank).string() + ".met";
}

std::optional<Record> FileRendezvous::find(int rank) const {
  if (rank == mine_.rank) return mine_;
  auto record = read_record_file(path_of(rank));
  if (!record || record->job_id != mine_.job_id || record->rank != rank || is_stale(*record, mine_.locality))
    return std::nullopt;
  return record;
}

std::vector<Record> FileRendezvous::wait_for_all(Deadline deadline) const {
  auto const ranks = static_cast<std::size_t>(mine_.world_size);
  std::vector<std::optional<Record>> found(ranks);
  std::vector<bool> has_met(ranks, false);
  auto const wait = [&](auto is_here) {
    while (true) {
      std::vector<int> missing;
      for (std::size_t rank = 0; rank < ranks; ++rank)
        if (!is_here(rank)) missing.push_back(static_cast<int>(rank));
      if (missing.empty()) return;
      if (deadline.has_passed())
        throw Error(Errc::start_failed, name_ranks(missing) + " of " + std::to_string(ranks) + " did not show up in " +
                                            directory_.string() +
                                            "; see whether they were started, look into their logs, or raise "
                                            "HOLDFAST_START_TIMEOUT_MS");
      std::this_thread::sleep_for(kPollPeriod);
    }
  };
  bool is_another_size = false;  // Then some wait for ranks that others know nothing of: nobody needs to wait longer.
  wait([&](std::size_t rank) {
    if (!found[rank]) found[rank] = find(static_cast<int>(rank));
    if (found[rank] && found[rank]->world_size != mine_.world_size) is_another_size = true;
    return found[rank].has_value() || is_another_size;
  });
  write_whole_file(mark_of(mine_.rank), text::hex(mine_.token), mine_.token);
  wait([&](std::size_t rank) {
    if (!has_met[rank] && found[rank])
      has_met[rank] = read_text_file(mark_of(static_cast<int>(rank))) == text::hex(found[rank]->token);
    return has_met[rank] || !found[rank];
  });
  return those_found(std::move(found));
}

void FileRendezvous::clean_up() const {
  // A newer process may have put its own record there: only ours goes.
  auto const record = read_record_file(path_of(mine_.rank));
  if (!record || record->token != mine_.token) return;
  std::error_code ignored;
  fs::remove(path_of(mine_.rank), ignored);
  fs::remove(mark_of(mine_.rank), ignored);
}

}  // namespace holdfast::net
