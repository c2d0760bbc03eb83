#include "keys.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include <holdfast/runtime/error.hpp>

#include "../text.hpp"

namespace holdfast::config {
namespace {

[[noreturn]] void refuse(Key const& key, std::string const& value, std::string const& expected) {
  throw Error(Errc::bad_config, key.name + " = \"" + value + "\" is not " + expected + " (" + key.variable() + ")");
}

/// A whole number with an optional binary suffix: 4M is 4194304.
long long parse_number(Key const& key, std::string const& value) {
  auto const bounds = "a whole number from " + std::to_string(key.minimum) + " to " + std::to_string(key.maximum);
  long long number = 0;
  auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  std::string suffix(end, value.data() + value.size());
  if (error != std::errc{}) refuse(key, value, bounds);
  if (key.type == "bytes" && suffix.size() == 1) {
    auto const at = std::string("KMGT").find(suffix[0]);
    if (at != std::string::npos) {
      int const shift = 10 * (static_cast<int>(at) + 1);
      if (number < 0 || number > (std::numeric_limits<long long>::max() >> shift)) refuse(key, value, bounds);
      number <<= shift;
      suffix.clear();
    }
  }
  if (!suffix.empty() || number < key.minimum || number > key.maximum) refuse(key, value, bounds);
  return number;
}

std::string checked_choice(Key const& key, std::string const& value) {
  std::vector<std::string> choices;
  for (std::size_t begin = 0; begin <= key.type.size();) {
    auto const end = std::min(key.type.find('|', begin), key.type.size());
    choices.push_back(key.type.substr(begin, end - begin));
    begin = end + 1;
  }
  if (std::find(choices.begin(), choices.end(), value) == choices.end())
    refuse(key, value, "one of: " + text::list(text::nearest_first(value, choices)));
  return value;
}

// How the types of fields are read and written; the table below names a field once, as a template argument.
void assign(std::optional<int>& field, Key const& key, std::string const& value) {
  field = static_cast<int>(parse_number(key, value));
}
void assign(std::chrono::milliseconds& field, Key const& key, std::string const& value) {
  field = std::chrono::milliseconds(parse_number(key, value));
}
void assign(std::size_t& field, Key const& key, std::string const& value) {
  field = static_cast<std::size_t>(parse_number(key, value));
}
void assign(std::string& field, Key const& key, std::string const& value) {
  field = key.type.find('|') == std::string::npos ? value : checked_choice(key, value);
}

std::string show(std::optional<int> const& field) {
  return field ? std::to_string(*field) : "";
}
std::string show(std::chrono::milliseconds field) {
  return std::to_string(field.count());
}
std::string show(std::size_t field) {
  return std::to_string(field);
}
std::string show(std::string const& field) {
  return field;
}
std::string show_hidden(std::string const& field) {
  return field.empty() ? "" : "(hidden)";
}

template <auto Field>
Key make(std::string name, std::string type, std::string doc, long long minimum = 0, long long maximum = 0) {
  return {std::move(name),
          std::move(type),
          std::move(doc),
          [](Config& config, Key const& key, std::string const& value) { assign(config.*Field, key, value); },
          [](Config const& config) { return show(config.*Field); },
          minimum,
          maximum};
}

/// A text that no print or log may contain.
template <auto Field>
Key make_hidden(std::string name, std::string doc) {
  auto key = make<Field>(std::move(name), "text", std::move(doc));
  key.get = [](Config const& config) { return show_hidden(config.*Field); };
  return key;
}

constexpr long long kMaxRanks = 65'536;
constexpr long long kHour = 3'600'000;
constexpr long long kTebi = 1LL << 40;

}  // namespace

std::string Key::variable() const {
  std::string text = "HOLDFAST_" + name;
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return text;
}

std::vector<Key> const& keys() {
  static std::vector<Key> const table{
      make<&Config::rank>("rank", "integer", "position of this member at start; empty: the launcher says", 0,
                          kMaxRanks - 1),
      make<&Config::world_size>("world_size", "integer", "members at start; empty: the launcher says", 1, kMaxRanks),
      make<&Config::rendezvous>(
          "rendezvous", "text",
          "where members meet: `file:///directory` or `tcp://host:port`; empty: the launcher says"),
      make<&Config::join>("join", "text",
                          "this process joins a running job: `tcp://host:port[,…]` of members, or `file:///directory`, "
                          "the rendezvous of the first ones; rank and world_size then mean nothing"),
      make<&Config::join_rate>("join_rate", "bytes",
                               "per second, at which a member sends its state to a newcomer; 0: as fast as it goes", 0,
                               kTebi),
      make<&Config::join_buffer_bytes>(
          "join_buffer_bytes", "bytes",
          "results of rounds that wait for a newcomer; when they are more, the member that "
          "sends them holds the group up a little in each round",
          1LL << 20, kTebi),
      make<&Config::job_id>("job_id", "text", "members of another job are ignored; empty: the launcher's job id"),
      make<&Config::bind_address>(
          "bind_address", "text",
          "address to listen on; empty: loopback on one host, a private address when the launcher uses several"),
      make_hidden<&Config::job_secret>(
          "job_secret", "at least 16 bytes that all members, and nobody else, know: proven on every connection"),
      make<&Config::job_secret_file>("job_secret_file", "text",
                                     "file that holds the job secret; better than a variable"),
      make<&Config::tls>(
          "tls", "off|on",
          "`on`: what members send each other is enciphered (TLS 1.3), by the job secret or certificates"),
      make<&Config::tls_certificate>("tls_certificate", "text",
                                     "this member's certificate, a PEM file; empty: the job secret is the key"),
      make<&Config::tls_key>("tls_key", "text", "the certificate's private key, a PEM file"),
      make<&Config::tls_ca>("tls_ca", "text",
                            "whose certificates are believed, a PEM file: an authority of this job alone"),
      make<&Config::fabric>("fabric", "auto|loopback|shm|tcp|mpi", "what carries bulk data between members"),
      make<&Config::tcp_connections>("tcp_connections", "integer",
                                     "connections of the tcp fabric for bulk data, per pair of members", 1, 64),
      make<&Config::emulate_link>("emulate_link", "text",
                                  "slows what the tcp fabric sends to each member, for tests: one-way delay and rate, "
                                  "as in `25ms,50mbit`; empty: as fast as it goes"),
      make<&Config::heartbeat_period>("heartbeat_period_ms", "milliseconds", "time between two heartbeats", 1, 60'000),
      make<&Config::heartbeat_timeout>(
          "heartbeat_timeout_ms", "milliseconds",
          "silence after which a member is suspected; doubled for one that was suspected falsely", 4, kHour),
      make<&Config::on_loss>("on_loss", "shrink|end",
                             "a member is lost: go on with the others, or end all with the same failure"),
      make<&Config::quorum>("quorum", "auto|majority|certified",
                            "who must agree on the next view; certified: nobody leaves before its process was seen to "
                            "end; auto: certified under one `holdfast run` on one host, else majority"),
      make<&Config::supervisor>(
          "supervisor", "text",
          "`unix:///socket` of the supervisor, which fences and certifies; set by `holdfast run`"),
      make<&Config::parked_limit>("parked_limit_ms", "milliseconds",
                                  "how long a member without a quorum waits before it gives up", 1, 24 * kHour),
      make<&Config::slow_policy>("slow_policy", "wait|skip|evict",
                                 "a member is late for a round: wait, leave its contribution out, or go on without it"),
      make<&Config::slow_factor>("slow_factor", "integer",
                                 "late is who takes so many times the median of recent rounds", 1, 1'000),
      make<&Config::slow_floor>("slow_floor_ms", "milliseconds",
                                "and keeps half of the members waiting for at least this long", 1, kHour),
      make<&Config::op_timeout>("op_timeout_ms", "milliseconds", "default deadline of one operation", 1, 24 * kHour),
      make<&Config::start_timeout>("start_timeout_ms", "milliseconds", "time for the members to find each other", 1,
                                   24 * kHour),
      make<&Config::chunk_bytes>("chunk_bytes", "bytes", "unit of progress of bulk data", 4'096, 1LL << 30),
      make<&Config::arena_bytes>("arena_bytes", "bytes",
                                 "address space reserved for communication buffers; memory is used when touched",
                                 1LL << 20, 64 * kTebi),
      make<&Config::log_level>("log_level", "trace|debug|info|warning|error|off", "least severe line that is written"),
      make<&Config::event_log>("event_log", "text", "path of the JSON lines record, %r becomes the rank; empty: none"),
  };
  return table;
}

Key const& find(std::string const& name) {
  std::vector<std::string> names;
  for (auto const& key : keys()) {
    if (key.name == name) return key;
    names.push_back(key.name);
  }
  auto const sorted = text::nearest_first(name, std::move(names));
  throw Error(Errc::bad_config, "unknown key \"" + name + "\"; did you mean \"" + sorted.front() +
                                    "\"? Valid keys, nearest first: " + text::list(sorted));
}

}  // namespace holdfast::config
