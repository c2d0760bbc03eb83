#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::launch {

/// What `holdfast run` and its agents say to each other: one JSON object a line.
///
/// To the agent, on its standard input: first a HostJob, then commands. From the agent, on standard error among the
/// lines of its ranks: reports, each behind kReportMark, which no line of a rank begins with.

/// What one host has to do.
struct HostJob {
  std::string version;  ///< of holdfast; both sides must be of one
  std::string job_id;
  std::string host;    ///< as it was named to `holdfast run`
  int first_rank = 0;  ///< of this host
  int ranks = 1;       ///< on this host
  int world_size = 1;
  int hosts = 1;
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;
  std::string folder;  ///< to run in
  std::string secret;
  std::string log_dir;  ///< empty: none
  std::string events;  ///< where the launcher keeps the event log, and the agent when the launcher is gone; empty: none
  bool is_quiet = false;
  bool survives = true;
  bool fences = false;
  int max_restarts = 0;
  double grace_s = 10;
};

/// A later line to the agent.
struct AgentCommand {
  enum class Kind { go, signal, certify, finishing, reach } kind{};
  std::string text;         ///< go: the rendezvous; certify: the job id; reach: where newcomers may call
  std::int64_t number = 0;  ///< signal: its number; certify: the member
};

/// A line from the agent.
struct AgentReport {
  enum class Kind {
    ready,        ///< `text`: an address of the host; `number`: a free port there
    refused,      ///< it cannot do the job: `text` says why
    started,      ///< a process of `rank`, whose id is `number`
    member,       ///< `rank` has become a member
    reachable,    ///< and newcomers may call it at `text`
    ended,        ///< `rank`, with status `number`
    certificate,  ///< member `number` of job `text` was seen to end
    event,        ///< a line for the event log
    alive,        ///< every kAlivePeriod
  } kind{};
  int rank = -1;
  std::int64_t number = 0;
  bool flag = false;          ///< ended: by a signal
  bool is_restarted = false;  ///< ended: and will be started again
  std::string text{};
};

inline constexpr std::chrono::seconds kAlivePeriod{1};
/// A host whose agent says nothing for this long is lost.
inline constexpr std::chrono::seconds kAgentSilence{15};

inline constexpr std::string_view kReportMark = "\x1eholdfast ";

[[nodiscard]] std::string encode(HostJob const& job);
[[nodiscard]] std::string encode(AgentCommand const& command);
[[nodiscard]] std::string encode(AgentReport const& report);
/// Nothing for a line that is not one.
[[nodiscard]] std::optional<HostJob> decode_host_job(std::string_view line);
[[nodiscard]] std::optional<AgentCommand> decode_command(std::string_view line);
[[nodiscard]] std::optional<AgentReport> decode_report(std::string_view line);

}  // namespace holdfast::launch
