#include "record.hpp"

#include <random>

#include <unistd.h>

#include <holdfast/runtime/version.hpp>

#include "host.hpp"
#include "security/credentials.hpp"

namespace holdfast::net {
namespace {

/// Options that change what members send or expect of each other.
std::vector<std::pair<std::string, std::string>> agreed_options(Config const& config) {
  return {{"security", security::kind_of_security(config)},
          {"fabric", config.fabric},
          {"chunk_bytes", std::to_string(config.chunk_bytes)},
          {"on_loss", config.on_loss},
          {"quorum", config.quorum},
          {"heartbeat_period_ms", std::to_string(config.heartbeat_period.count())},
          {"heartbeat_timeout_ms", std::to_string(config.heartbeat_timeout.count())}};
}

std::uint64_t random_token() {
  std::random_device source;
  return static_cast<std::uint64_t>(source()) << 32 | source();
}

std::string differ(Record const& a, Record const& b, std::string const& what, std::string const& value_a,
                   std::string const& value_b) {
  return "rank " + std::to_string(b.rank) + " (" + b.host + ") differs from rank " + std::to_string(a.rank) + " (" +
         a.host + ") in " + what + ": " + value_b + " against " + value_a;
}

}  // namespace

Record describe_self(Config const& config, int rank, int world_size) {
  Record record;
  record.version = version();
  record.job_id = config.job_id;
  record.rank = rank;
  record.world_size = world_size;
  record.host = host_name();
  record.pid = ::getpid();
  record.process_start = process_start(record.pid).value_or(0);
  record.locality = locality();
  record.token = random_token();
  record.options = agreed_options(config);
  return record;
}

std::optional<std::string> first_difference(std::vector<Record> const& records) {
  if (records.empty()) return std::nullopt;
  auto const& first = records.front();
  for (auto const& other : records) {
    if (other.version != first.version)
      return differ(first, other, "holdfast version", first.version, other.version) +
             "; install the same build on every host";
    if (other.world_size != first.world_size)
      return differ(first, other, "world_size", std::to_string(first.world_size), std::to_string(other.world_size)) +
             "; start every member with the same HOLDFAST_WORLD_SIZE";
    if (other.job_id != first.job_id)
      return differ(first, other, "job_id", "\"" + first.job_id + "\"", "\"" + other.job_id + "\"") +
             "; start every member with the same HOLDFAST_JOB_ID";
    for (std::size_t i = 0; i < first.options.size() && i < other.options.size(); ++i)
      if (other.options[i] != first.options[i])
        return differ(first, other, first.options[i].first, first.options[i].second, other.options[i].second) +
               "; give every member the same configuration";
  }
  return std::nullopt;
}

}  // namespace holdfast::net
