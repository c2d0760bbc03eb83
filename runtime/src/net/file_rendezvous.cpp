#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "../text.hpp"
#include "host.hpp"
#include "rendezvous.hpp"
#include "wire.hpp"

namespace holdfast::net {
namespace {

namespace fs = std::filesystem;

// Short beside process start-up, long beside a file system call on a network mount.
constexpr auto kPollPeriod = std::chrono::milliseconds(5);
constexpr std::uintmax_t kMaxRecordBytes = 65'536;

/// Job ids may hold anything; file names may not. A hash keeps the records of two jobs in two files.
std::string file_name(std::string const& job_id, int rank) {
  return "holdfast-" + text::hex(std::hash<std::string>{}(job_id)) + "-rank-" + std::to_string(rank);
}

std::optional<Record> read_record(fs::path const& path) {
  std::error_code error;
  auto const bytes = fs::file_size(path, error);
  if (error || bytes > kMaxRecordBytes) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::string const content{std::istreambuf_iterator<char>(file), {}};
  auto record = decode_record(content);
  if (!record) return std::nullopt;
  return std::move(*record);
}

/// Left behind by a process of this host that no longer runs.
bool is_stale(Record const& record, std::string const& own_locality) {
  return record.locality == own_locality && process_start(record.pid) != record.process_start;
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
  auto const temporary = path_of(mine_.rank).string() + ".tmp-" + text::hex(mine_.token);
  std::ofstream file(temporary, std::ios::binary);
  file << encode(mine_);
  file.close();
  if (!file)
    throw Error(Errc::environment, "cannot write into the rendezvous directory " + directory_.string() +
                                       "; HOLDFAST_RENDEZVOUS must name a directory that every member can write");
  fs::rename(temporary, path_of(mine_.rank));
}

FileRendezvous::~FileRendezvous() {
  // A newer process may have put its own record there: only ours goes.
  auto const path = path_of(mine_.rank);
  auto const record = read_record(path);
  std::error_code ignored;
  if (record && record->token == mine_.token) fs::remove(path, ignored);
}

fs::path FileRendezvous::path_of(int rank) const {
  return directory_ / file_name(mine_.job_id, rank);
}

std::vector<Record> FileRendezvous::wait_for_all(Deadline deadline) const {
  auto const ranks = static_cast<std::size_t>(mine_.world_size);
  std::vector<std::optional<Record>> found(ranks);
  while (true) {
    std::vector<int> missing;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      if (found[rank]) continue;
      auto record = static_cast<int>(rank) == mine_.rank ? mine_ : read_record(path_of(static_cast<int>(rank)));
      if (record && record->job_id == mine_.job_id && record->rank == static_cast<int>(rank) &&
          !is_stale(*record, mine_.locality))
        found[rank] = std::move(record);
      else
        missing.push_back(static_cast<int>(rank));
    }
    if (missing.empty()) break;
    if (deadline.has_passed())
      throw Error(Errc::start_failed,
                  name_ranks(missing) + " of " + std::to_string(ranks) + " did not show up in " + directory_.string() +
                      "; see whether they were started, look into their logs, or raise HOLDFAST_START_TIMEOUT_MS");
    std::this_thread::sleep_for(kPollPeriod);
  }
  std::vector<Record> records;
  for (auto& record : found) records.push_back(std::move(*record));
  return records;
}

}  // namespace holdfast::net
