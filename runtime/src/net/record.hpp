#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/view.hpp>

namespace holdfast::net {

/// What a member tells the others about itself before they are connected.
struct Record {
  std::string version;  ///< of holdfast
  std::string job_id;
  int rank = 0;
  int world_size = 0;
  std::string host;
  std::int64_t pid = 0;
  std::uint64_t process_start =
      0;  ///< start time as the kernel counts it: tells a process from a later one of equal pid
  std::string locality;
  std::string address;
  std::uint16_t port = 0;
  std::uint64_t token = 0;                                   ///< must be shown by whoever connects here
  std::vector<std::pair<std::string, std::string>> options;  ///< those that must be equal everywhere
};

/// Fills in what concerns this process and the options of `config`; address and port are the caller's.
[[nodiscard]] Record describe_self(Config const& config, int rank, int world_size);

/// The first thing on which the members differ, as a sentence that names both, in rank order; nothing if they agree.
/// Every member finds the same one, since all have the same records.
[[nodiscard]] std::optional<std::string> first_difference(std::vector<Record> const& records);

}  // namespace holdfast::net
