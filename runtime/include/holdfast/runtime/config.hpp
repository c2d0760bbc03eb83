#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

namespace holdfast {

/// Every setting of the runtime, and of the layers above that must agree between members.
///
/// The fields are the table: the command line, the environment, the file, the start-up print and the documentation are
/// all generated from one list of them (src/config/keys.cpp). A value: read once at start, then unchanged.
/// Priority: command line, environment, TOML file named by HOLDFAST_CONFIG, default.
struct Config {
  std::optional<int> rank;        ///< HOLDFAST_RANK: position of this member at start
  std::optional<int> world_size;  ///< HOLDFAST_WORLD_SIZE: members at start
  std::string rendezvous;  ///< HOLDFAST_RENDEZVOUS: file:///directory or tcp://host:port; empty: ask the launcher
  /// HOLDFAST_JOIN: tcp://host:port[,...] of members, or file:///directory where they publish themselves: this process
  /// joins a running job. rank and world_size then mean nothing.
  std::string join;
  /// HOLDFAST_JOIN_RATE: bytes per second at which a member sends its state to a newcomer; 0: as fast as it goes
  std::size_t join_rate = 0;
  /// HOLDFAST_JOIN_BUFFER_BYTES: results of rounds that may wait for a newcomer, at either end.
  std::size_t join_buffer_bytes = std::size_t{1} << 30;
  std::string job_id;           ///< HOLDFAST_JOB_ID: members of another job are ignored
  std::string bind_address;     ///< HOLDFAST_BIND_ADDRESS: empty: loopback on one host, a private address on several
  std::string job_secret;       ///< HOLDFAST_JOB_SECRET: what members prove to know; printed as "(hidden)"
  std::string job_secret_file;  ///< HOLDFAST_JOB_SECRET_FILE: read once at the start
  std::string tls = "off";      ///< HOLDFAST_TLS: "on" enciphers what members send each other, on the tcp fabric too
  std::string tls_certificate;  ///< HOLDFAST_TLS_CERTIFICATE: PEM file; empty: the job secret is the key
  std::string tls_key;          ///< HOLDFAST_TLS_KEY: of the certificate
  std::string tls_ca;           ///< HOLDFAST_TLS_CA: whose certificates are believed
  std::string fabric = "auto";  ///< HOLDFAST_FABRIC: what carries bulk data
  std::size_t tcp_connections = 2;  ///< HOLDFAST_TCP_CONNECTIONS: of the tcp fabric for bulk data, per pair of members
  std::string emulate_link;         ///< HOLDFAST_EMULATE_LINK: "25ms,50mbit" slows the tcp fabric down, for tests
  /// HOLDFAST_HEARTBEAT_PERIOD_MS
  std::chrono::milliseconds heartbeat_period{50};
  /// HOLDFAST_HEARTBEAT_TIMEOUT_MS: silence after which a member is suspected. A suspicion that proves false doubles
  /// it for that member, up to eight times.
  std::chrono::milliseconds heartbeat_timeout{500};
  /// HOLDFAST_ON_LOSS: what a lost member means. `shrink`: the others agree on the next view and go on. `end`: every
  /// member ends with the same failure; a false suspicion then ends the job, so give it a timeout of seconds.
  std::string on_loss = "shrink";
  /// HOLDFAST_QUORUM: who must agree on the next view. `majority`: more than half, or all whose end nobody observed if
  /// that is half. `certified`: all whose end nobody observed; the supervisor ends one that hangs, so that the rest
  /// goes on down to the last. `auto`: certified where one supervisor on one host started everybody, else majority.
  std::string quorum = "auto";
  /// HOLDFAST_SUPERVISOR: socket of the program that started this member, for fencing and certificates;
  /// unix:///path, set by `holdfast run`.
  std::string supervisor;
  /// HOLDFAST_PARKED_LIMIT_MS: how long a member without a quorum waits before it gives up.
  std::chrono::milliseconds parked_limit{600'000};
  /// HOLDFAST_SLOW_POLICY: what happens to a member whose training thread comes late to a round. `wait`: the others
  /// wait. `skip`: the round ends without its contribution. `evict`: the others go on without it; needs on_loss =
  /// shrink.
  std::string slow_policy = "wait";
  /// HOLDFAST_SLOW_FACTOR: late is who takes longer than so many times the median of recent rounds ...
  std::size_t slow_factor = 4;
  /// HOLDFAST_SLOW_FLOOR_MS: ... and keeps half of the members waiting for at least this long.
  std::chrono::milliseconds slow_floor{500};
  std::chrono::milliseconds op_timeout{30'000};     ///< HOLDFAST_OP_TIMEOUT_MS: default deadline of one operation
  std::chrono::milliseconds start_timeout{60'000};  ///< HOLDFAST_START_TIMEOUT_MS: for the members to find each other
  std::size_t chunk_bytes = std::size_t{1} << 20;   ///< HOLDFAST_CHUNK_BYTES: unit of progress of bulk data
  /// HOLDFAST_ARENA_BYTES: address space reserved for communication buffers; memory is used only when touched.
  std::size_t arena_bytes = std::size_t{16} << 30;
  std::string log_level = "info";  ///< HOLDFAST_LOG_LEVEL
  std::string event_log;           ///< HOLDFAST_EVENT_LOG: path of the JSON lines; %r becomes the rank; empty: none

  /// @throws Error bad_config for an unknown HOLDFAST_* variable or key (the valid ones are listed, nearest first), an
  ///         ill-typed value or one out of its bounds (both are named)
  [[nodiscard]] static Config from_environment();

  /// As from_environment(), under the arguments `--holdfast-KEY value` and `--holdfast-KEY=value` (a dash in KEY is as
  /// good as an underscore). These are removed from argv and argc; all others stay in their order.
  /// @throws Error as from_environment()
  [[nodiscard]] static Config from_command_line(int& argc, char** argv);

  /// Sets one key from text, as the environment would.
  /// @throws Error bad_config
  void set(std::string const& key, std::string const& value);

  /// `key = value` lines, one a key, for the start of a log.
  [[nodiscard]] std::string print() const;

  /// Markdown table of all keys.
  [[nodiscard]] static std::string documentation();

  /// Checks what no single key can: rank below world_size, heartbeat timeout above the period, one secret, and
  /// what TLS needs.
  /// @throws Error bad_config
  void validate() const;
};

}  // namespace holdfast
