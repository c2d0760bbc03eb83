#pragma once

#include <string>
#include <vector>

#include "agent_messages.hpp"
#include "host_list.hpp"
#include "job_policy.hpp"

namespace holdfast::launch {

struct HostsJob {
  std::vector<HostSlots> hosts;
  std::string agent;  ///< template of the command that starts an agent, without the agent itself
  HostJob of_each;    ///< what all hosts are told
  JobPolicy::Options policy;
};

/// Words that start the agent of one host.
[[nodiscard]] std::vector<std::string> agent_command_line(HostsJob const& job, std::string const& host);

/// Starts an agent on each host, and through them the ranks, and waits until all have ended.
///
/// An agent or a host that is lost is the loss of its ranks; the others go on. When this process dies, agents go on
/// without it, except those that have not been told to start yet.
/// @return the job's status, by JobPolicy
[[nodiscard]] int run_on_hosts(HostsJob const& job);

}  // namespace holdfast::launch
