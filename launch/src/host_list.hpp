#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::launch {

/// One host of a job and how many ranks run there.
struct HostSlots {
  std::string name;
  int ranks = 1;
  friend bool operator==(HostSlots const&, HostSlots const&) = default;
};

/// "h0:2,h1:2,h2"; one rank where no number is given. An IPv6 address stands in brackets: "[fd00::1]:2".
/// @throws UsageError naming the part that is no host
[[nodiscard]] std::vector<HostSlots> parse_hosts(std::string_view option, std::string_view text);

/// A host a line: "h0 slots=2", "h0:2" or "h0"; blank lines and what follows # are skipped.
/// @throws Error not_found, UsageError naming the line
[[nodiscard]] std::vector<HostSlots> read_hostfile(std::filesystem::path const& file);

/// The words of an --agent template for one host: {host} becomes its name, which comes last where {host} is missing.
/// Quotes and backslashes hold words together as in a shell.
/// @throws UsageError for an empty template or an open quote
[[nodiscard]] std::vector<std::string> agent_words(std::string_view text, std::string const& host);

}  // namespace holdfast::launch
