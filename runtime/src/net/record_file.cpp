#include "record_file.hpp"

#include <fstream>
#include <functional>
#include <iterator>
#include <system_error>

#include <holdfast/runtime/error.hpp>

#include "../text.hpp"
#include "host.hpp"
#include "wire.hpp"

namespace holdfast::net {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxRecordBytes = 65'536;

}  // namespace

std::string record_file_prefix(std::string const& job_id) {
  return "holdfast-" + text::hex(std::hash<std::string>{}(job_id));
}

std::string read_text_file(fs::path const& path) {
  std::error_code error;
  auto const bytes = fs::file_size(path, error);
  if (error || bytes > kMaxRecordBytes) return "";
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<Record> read_record_file(fs::path const& path) {
  auto record = decode_record(read_text_file(path));
  if (!record) return std::nullopt;
  return std::move(*record);
}

void write_whole_file(fs::path const& path, std::string const& content, std::uint64_t token) {
  auto const temporary = path.string() + ".tmp-" + text::hex(token);
  std::ofstream file(temporary, std::ios::binary);
  file << content;
  file.close();
  std::error_code error;
  if (file) fs::rename(temporary, path, error);
  if (!file || error)
    throw Error(Errc::environment, "cannot write into the rendezvous directory " + path.parent_path().string() +
                                       "; HOLDFAST_RENDEZVOUS must name a directory that every member can write");
}

bool is_stale(Record const& record, std::string const& own_locality) {
  return record.locality == own_locality && process_start(record.pid) != record.process_start;
}

}  // namespace holdfast::net
