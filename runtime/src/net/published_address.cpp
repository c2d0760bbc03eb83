#include "published_address.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "host.hpp"
#include "record_file.hpp"
#include "wire.hpp"

namespace holdfast::net {
namespace {

namespace fs = std::filesystem;

std::string member_file_prefix(std::string const& job_id) {
  return record_file_prefix(job_id) + "-member-";
}

}  // namespace

PublishedAddress::PublishedAddress(fs::path const& directory, Record mine)
    : path_(directory / (member_file_prefix(mine.job_id) + std::to_string(mine.rank))), mine_(std::move(mine)) {
  std::error_code error;
  fs::create_directories(directory, error);
  write_whole_file(path_, encode(mine_), mine_.token);
}

PublishedAddress::PublishedAddress(PublishedAddress&& other) noexcept
    : path_(std::exchange(other.path_, {})), mine_(std::move(other.mine_)) {}

PublishedAddress& PublishedAddress::operator=(PublishedAddress&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(mine_, other.mine_);
  return *this;
}

PublishedAddress::~PublishedAddress() {
  if (path_.empty()) return;
  // A newer process may have put its own record there: only ours goes.
  auto const record = read_record_file(path_);
  if (!record || record->token != mine_.token) return;
  std::error_code ignored;
  fs::remove(path_, ignored);
}

std::vector<Record> published_addresses(fs::path const& directory, std::string const& job_id) {
  std::vector<Record> records;
  auto const prefix = member_file_prefix(job_id);
  auto const here = locality();
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    auto const name = entry->path().filename().string();
    if (name.rfind(prefix, 0) != 0 || name.find(".tmp-") != std::string::npos) continue;
    auto record = read_record_file(entry->path());
    if (record && record->job_id == job_id && !is_stale(*record, here)) records.push_back(std::move(*record));
  }
  std::sort(records.begin(), records.end(), [](Record const& a, Record const& b) { return a.rank < b.rank; });
  return records;
}

}  // namespace holdfast::net
