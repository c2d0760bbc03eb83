#include "agent_messages.hpp"

#include <nlohmann/json.hpp>

namespace holdfast::launch {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HostJob, version, job_id, host, first_rank, ranks, world_size, hosts, command,
                                   environment, folder, secret, log_dir, events, is_quiet, survives, fences,
                                   max_restarts, grace_s)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AgentCommand, kind, text, number)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AgentReport, kind, rank, number, flag, is_restarted, text)

namespace {

template <typename Message>
std::string line_of(Message const& message) {
  // Names and output need not be UTF-8; what is not is replaced rather than refused.
  return nlohmann::json(message).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

template <typename Message>
std::optional<Message> message_of(std::string_view line) {
  try {
    return nlohmann::json::parse(line).get<Message>();
  } catch (nlohmann::json::exception const&) {
    return std::nullopt;
  }
}

}  // namespace

std::string encode(HostJob const& job) {
  return line_of(job);
}
std::string encode(AgentCommand const& command) {
  return line_of(command);
}
std::string encode(AgentReport const& report) {
  return line_of(report);
}
std::optional<HostJob> decode_host_job(std::string_view line) {
  return message_of<HostJob>(line);
}
std::optional<AgentCommand> decode_command(std::string_view line) {
  return message_of<AgentCommand>(line);
}
std::optional<AgentReport> decode_report(std::string_view line) {
  return message_of<AgentReport>(line);
}

}  // namespace holdfast::launch
