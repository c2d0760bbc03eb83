#include "host_list.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include <holdfast/runtime/error.hpp>

#include "usage.hpp"

namespace holdfast::launch {
namespace {

constexpr long kMostRanks = 4096;

HostSlots parse_host(std::string_view option, std::string_view text) {
  HostSlots host;
  std::size_t colon = std::string_view::npos;
  if (!text.empty() && text.front() == '[') {
    auto const end = text.find(']');
    if (end == std::string_view::npos)
      throw UsageError(std::string(option) + ": '" + std::string(text) + "' opens a bracket and does not close it");
    host.name = text.substr(1, end - 1);
    if (end + 1 < text.size()) colon = end + 1;
    if (colon != std::string_view::npos && text[colon] != ':')
      throw UsageError(std::string(option) + ": '" + std::string(text) + "' is not valid; expected [ADDRESS]:RANKS");
  } else {
    colon = text.find(':');
    host.name = text.substr(0, colon);
  }
  bool const is_name = !host.name.empty() && host.name.front() != '-' &&
                       std::none_of(host.name.begin(), host.name.end(), [](char c) { return c <= ' ' || c == '\''; });
  if (!is_name)
    throw UsageError(std::string(option) + ": '" + std::string(text) + "' is no host; expected HOST or HOST:RANKS");
  if (colon != std::string_view::npos)
    host.ranks = static_cast<int>(parse_integer(option, text.substr(colon + 1), 1, kMostRanks));
  return host;
}

}  // namespace

std::vector<HostSlots> parse_hosts(std::string_view option, std::string_view text) {
  std::vector<HostSlots> hosts;
  for (std::size_t begin = 0; begin <= text.size();) {
    auto const end = std::min(text.find(',', begin), text.size());
    hosts.push_back(parse_host(option, text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return hosts;
}

std::vector<HostSlots> read_hostfile(std::filesystem::path const& file) {
  std::ifstream lines(file);
  if (!lines) throw Error(Errc::not_found, "--hostfile: cannot read '" + file.string() + "'");
  std::vector<HostSlots> hosts;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name, slots, rest;
    if (!(words >> name)) continue;
    std::string const option = file.string() + " line " + std::to_string(number);
    auto host = parse_host(option, name);
    constexpr std::string_view kSlots = "slots=";
    if (words >> slots) {
      if (slots.rfind(kSlots, 0) != 0 || words >> rest)
        throw UsageError(option + ": '" + slots + "' is not valid; expected slots=RANKS");
      host.ranks = static_cast<int>(parse_integer(option, slots.substr(kSlots.size()), 1, kMostRanks));
    }
    hosts.push_back(host);
  }
  if (hosts.empty()) throw UsageError("--hostfile: '" + file.string() + "' names no host");
  return hosts;
}

std::vector<std::string> agent_words(std::string_view text, std::string const& host) {
  std::vector<std::string> words;
  std::string word;
  bool is_open = false;
  char quote = '\0';
  for (std::size_t at = 0; at < text.size(); ++at) {
    char const c = text[at];
    if (quote != '\0') {
      if (c == quote)
        quote = '\0';
      else if (c == '\\' && quote == '"' && at + 1 < text.size())
        word += text[++at];
      else
        word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      is_open = true;
    } else if (c == '\\' && at + 1 < text.size()) {
      word += text[++at];
      is_open = true;
    } else if (c == ' ' || c == '\t') {
      if (is_open) words.push_back(std::exchange(word, {}));
      is_open = false;
    } else {
      word += c;
      is_open = true;
    }
  }
  if (quote != '\0') throw UsageError("--agent: '" + std::string(text) + "' has an open quote");
  if (is_open) words.push_back(word);
  if (words.empty()) throw UsageError("--agent: an empty command starts nothing; see holdfast run --help");
  constexpr std::string_view kHost = "{host}";
  bool is_named = false;
  for (auto& one : words)
    for (auto at = one.find(kHost); at != std::string::npos; at = one.find(kHost, at + host.size())) {
      one.replace(at, kHost.size(), host);
      is_named = true;
    }
  if (!is_named) words.push_back(host);
  return words;
}

}  // namespace holdfast::launch
