#include "hosts_launch.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/event_log.hpp>
#include <holdfast/runtime/version.hpp>

#include "local_ranks.hpp"
#include "supervisor.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

using namespace std::chrono_literals;
using Clock = ChildProcess::Clock;

constexpr auto kReadyLimit = 60s;
// Agents end their ranks themselves; this much later whatever is left of them here is killed.
constexpr auto kBackstop = 10s;
constexpr int kLostStatus = 128 + SIGKILL;

std::string own_program() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).string();
}

std::string random_secret() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::ifstream source("/dev/urandom", std::ios::binary);
  std::array<unsigned char, 32> bytes{};
  if (!source.read(reinterpret_cast<char*>(bytes.data()), bytes.size()))
    throw Error(Errc::environment, "cannot read /dev/urandom for a job secret; set HOLDFAST_JOB_SECRET_FILE");
  std::string text;
  for (auto const byte : bytes) text.append({kDigits[byte >> 4U], kDigits[byte & 15U]});
  return text;
}

/// The launcher's side of its agents.
class Agents : public SupervisorExtension {
 public:
  explicit Agents(HostsJob const& job)
      : job_(job), hosts_(job.hosts.size()), policy_(job.of_each.world_size, job.policy) {
    int first = 0;
    for (std::size_t index = 0; index < hosts_.size(); ++index) {
      hosts_[index].first_rank = first;
      hosts_[index].ended.assign(static_cast<std::size_t>(job.hosts[index].ranks), false);
      first += job.hosts[index].ranks;
    }
    ready_by_ = Clock::now() + kReadyLimit;
  }

  /// The agents themselves. Refers to this object.
  std::vector<ProcessPlan> plans() {
    std::vector<ProcessPlan> plans;
    for (std::size_t index = 0; index < hosts_.size(); ++index) {
      auto const& host = job_.hosts[index];
      auto of_host = job_.of_each;
      of_host.host = host.name;
      of_host.first_rank = hosts_[index].first_rank;
      of_host.ranks = host.ranks;
      hosts_[index].heard_at = Clock::now();
      ProcessPlan plan;
      plan.label = "the agent of host " + host.name;
      plan.command = agent_command_line(job_, host.name);
      plan.environment = environment_with({});
      plan.passes_output_through = index == 0;
      plan.takes_line = [this, index](std::string_view line) { return take(index, line); };
      plan.input = encode(of_host) + "\n";
      plan.orphan_signal = 0;
      plans.push_back(std::move(plan));
    }
    return plans;
  }

  void turn(Supervisor& supervisor) override {
    for (auto& [index, line] : std::exchange(lines_, {})) {
      if (auto const report = decode_report(line)) heed(supervisor, index, *report);
    }
    auto const now = Clock::now();
    if (!is_running_ && !is_ending_ && now > ready_by_) {
      std::string late;
      for (std::size_t index = 0; index < hosts_.size(); ++index)
        if (!hosts_[index].is_ready) late += (late.empty() ? "" : ", ") + job_.hosts[index].name;
      give_up(supervisor, "no agent answered on " + late + " within " + std::to_string(kReadyLimit.count()) + " s");
    }
    if (is_running_) lose_silent_hosts(supervisor, now);
    if (end_at_ && now > *end_at_) end_all(supervisor, SIGTERM);
    if (backstop_ && now > *backstop_) {
      backstop_ = now + 1s;
      supervisor.signal_all(SIGKILL);
    }
  }

  [[nodiscard]] std::optional<Clock::time_point> next_turn() const override {
    if (backstop_) return backstop_;
    if (!is_running_ && !is_ending_) return ready_by_ + 1ms;
    return Clock::now() + kAlivePeriod;
  }

  void on_ended(Supervisor& supervisor, int at, siginfo_t const& end) override {
    auto const index = static_cast<std::size_t>(at);
    turn(supervisor);  // what it said last
    auto& host = hosts_[index];
    host.is_gone = true;
    if (!is_running_) {
      if (!is_ending_) give_up(supervisor, describe_start(index, end));
      return;
    }
    bool const is_whole = std::all_of(host.ended.begin(), host.ended.end(), [](bool ended) { return ended; });
    if (is_whole) return;
    supervisor.say("host " + job_.hosts[index].name + " is lost (its agent " + describe_end(end) +
                   "), and its ranks with it");
    supervisor.record("host_lost", {{"host", job_.hosts[index].name}, {"reason", describe_end(end)}});
    for (std::size_t local = 0; local < host.ended.size(); ++local)
      if (!host.ended[local]) {
        host.ended[local] = true;
        // An agent that ends in order has ended its ranks, whose reports may be lost.
        bool const is_told = end.si_code == CLD_EXITED && end.si_status == 0;
        count_end(supervisor, host.first_rank + static_cast<int>(local), is_told ? 0 : kLostStatus, !is_told);
      }
  }

  bool on_signal(Supervisor& supervisor, int signal) override {
    if (signal == SIGUSR1 || signal == SIGUSR2) {
      tell_all(supervisor, {AgentCommand::Kind::signal, "", signal});
      return true;
    }
    bool const is_second = is_ending_ && signal == SIGINT;
    end_all(supervisor, is_second ? SIGKILL : signal);
    return true;
  }

  [[nodiscard]] std::optional<int> status() const override {
    return failed_start_ ? std::optional(1) : std::optional(policy_.status());
  }
  [[nodiscard]] int lost() const { return policy_.lost(); }

 private:
  struct Host {
    int first_rank = 0;
    bool is_ready = false;
    std::string address;
    std::int64_t port = 0;
    Clock::time_point heard_at{};
    bool is_gone = false;
    std::vector<bool> ended;
    std::map<int, std::string> reachable;  ///< by rank: where newcomers may call it
  };

  bool take(std::size_t index, std::string_view line) {
    if (line.substr(0, kReportMark.size()) != kReportMark) return false;
    lines_.emplace_back(index, std::string(line.substr(kReportMark.size())));
    return true;
  }

  void tell(Supervisor& supervisor, std::size_t index, AgentCommand const& command) {
    supervisor.feed(static_cast<int>(index), encode(command) + "\n");
  }
  void tell_all(Supervisor& supervisor, AgentCommand const& command) {
    for (std::size_t index = 0; index < hosts_.size(); ++index) tell(supervisor, index, command);
  }

  void heed(Supervisor& supervisor, std::size_t index, AgentReport const& report) {
    auto& host = hosts_[index];
    host.heard_at = Clock::now();
    auto const local = report.rank - host.first_rank;
    bool const is_of_host = local >= 0 && local < static_cast<int>(host.ended.size());
    switch (report.kind) {
      case AgentReport::Kind::ready:
        host.is_ready = true;
        host.address = report.text;
        host.port = report.number;
        return go_if_ready(supervisor);
      case AgentReport::Kind::refused:
        return give_up(supervisor, "host " + job_.hosts[index].name + ": " + report.text);
      case AgentReport::Kind::started:
        if (!is_of_host) return;
        host.ended[static_cast<std::size_t>(local)] = false;
        policy_.on_started(report.rank, Clock::now());
        return supervisor.record(
            "start",
            {{"process", std::int64_t{report.rank}}, {"host", job_.hosts[index].name}, {"pid", report.number}});
      case AgentReport::Kind::member:
        if (is_of_host) policy_.on_member(report.rank);
        return;
      case AgentReport::Kind::reachable:
        if (!is_of_host || job_.of_each.max_restarts == 0) return;
        host.reachable[report.rank] = report.text;
        return tell_where_newcomers_call(supervisor);
      case AgentReport::Kind::ended:
        if (!is_of_host) return;
        supervisor.record("exit", {{"process", std::int64_t{report.rank}},
                                   {"host", job_.hosts[index].name},
                                   {"status", report.number},
                                   {"reason", report.text}});
        host.reachable.erase(report.rank);
        if (report.is_restarted) return;
        host.ended[static_cast<std::size_t>(local)] = true;
        return count_end(supervisor, report.rank, static_cast<int>(report.number), report.flag);
      case AgentReport::Kind::certificate:
        supervisor.record("certificate", {{"job", report.text}, {"member", report.number}});
        for (std::size_t other = 0; other < hosts_.size(); ++other)
          if (other != index) tell(supervisor, other, {AgentCommand::Kind::certify, report.text, report.number});
        return;
      case AgentReport::Kind::event:
        if (events_file_) *events_file_ << report.text << '\n' << std::flush;
        return;
      case AgentReport::Kind::alive:
        return;
    }
  }

  /// A rank that is started again calls the others: the rendezvous of the start is there no more.
  void tell_where_newcomers_call(Supervisor& supervisor) {
    std::string addresses;
    for (auto const& host : hosts_) {
      if (host.is_gone || host.reachable.empty()) continue;
      // Two of each host are enough: whoever answers names the others.
      auto const second = host.reachable.size() > 1 ? std::next(host.reachable.begin()) : host.reachable.begin();
      for (auto one = host.reachable.begin(); one != std::next(second); ++one)
        addresses += (addresses.empty() ? "" : ",") + one->second;
    }
    if (!addresses.empty()) tell_all(supervisor, {AgentCommand::Kind::reach, addresses, 0});
  }

  void lose_silent_hosts(Supervisor& supervisor, Clock::time_point now) {
    // Our own absence, say by Ctrl-Z, is nobody's silence.
    bool const was_away = now - std::exchange(looked_at_, now) > kAgentSilence / 3;
    for (std::size_t index = 0; index < hosts_.size(); ++index) {
      auto& host = hosts_[index];
      if (was_away) host.heard_at = now;
      if (host.is_gone || now - host.heard_at < kAgentSilence) continue;
      host.is_gone = true;
      supervisor.say("host " + job_.hosts[index].name + " has said nothing for " +
                     std::to_string(kAgentSilence.count()) + " s");
      supervisor.kill_one(static_cast<int>(index));
    }
  }

  void go_if_ready(Supervisor& supervisor) {
    bool const are_ready = std::all_of(hosts_.begin(), hosts_.end(), [](Host const& host) { return host.is_ready; });
    if (!are_ready || is_running_ || is_ending_) return;
    is_running_ = true;
    auto const& first = hosts_.front();
    bool const is_ipv6 = first.address.find(':') != std::string::npos;
    auto const address = is_ipv6 ? "[" + first.address + "]" : first.address;
    tell_all(supervisor, {AgentCommand::Kind::go, "tcp://" + address + ":" + std::to_string(first.port), 0});
  }

  void count_end(Supervisor& supervisor, int rank, int status, bool by_signal) {
    auto const decision = policy_.on_ended(rank, status, by_signal, Clock::now());
    if (status == 0 && !std::exchange(is_finishing_, true))
      tell_all(supervisor, {AgentCommand::Kind::finishing, "", 0});
    if (is_ending_) return;
    switch (decision.step) {
      case JobPolicy::Step::go_on:
      case JobPolicy::Step::restart:
        return;
      case JobPolicy::Step::stop:
        supervisor.say("fewer than " + std::to_string(job_.policy.min) + " ranks are left: ending the job");
        supervisor.record("stop", {{"min", std::int64_t{job_.policy.min}}});
        return end_all(supervisor, SIGTERM);
      case JobPolicy::Step::end:
        // Its own host's agent gives the ranks there the same time.
        if (!end_at_) end_at_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(grace());
        return;
    }
  }

  void end_all(Supervisor& supervisor, int signal) {
    is_ending_ = true;
    policy_.on_ending();
    tell_all(supervisor, {AgentCommand::Kind::signal, "", signal});
    end_at_.reset();
    if (!backstop_) backstop_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(grace() + kBackstop);
    // Those that were not told to start yet wait for just this.
    if (!is_running_) supervisor.signal_all(SIGTERM);
  }

  [[nodiscard]] std::chrono::duration<double> grace() const {
    return std::chrono::duration<double>(job_.of_each.grace_s);
  }

  void give_up(Supervisor& supervisor, std::string const& reason) {
    if (is_ending_) return;
    supervisor.say(reason);
    failed_start_ = !is_running_;
    end_all(supervisor, SIGTERM);
  }

  [[nodiscard]] std::string describe_start(std::size_t index, siginfo_t const& end) const {
    auto const words = agent_command_line(job_, job_.hosts[index].name);
    return "no agent on host " + job_.hosts[index].name + ": `" + shell_line(words) + "` " + describe_end(end) +
           "; it must log in without a question and find holdfast there under the same path (see --agent)";
  }

  HostsJob const& job_;
  std::vector<Host> hosts_;
  JobPolicy policy_;
  std::vector<std::pair<std::size_t, std::string>> lines_;
  std::unique_ptr<std::ofstream> events_file_ =
      job_.of_each.events.empty() ? nullptr : std::make_unique<std::ofstream>(job_.of_each.events, std::ios::app);
  Clock::time_point ready_by_{};
  Clock::time_point looked_at_{};
  std::optional<Clock::time_point> end_at_;  ///< of the grace that the others have after a failure
  std::optional<Clock::time_point> backstop_;
  bool is_running_ = false;
  bool is_ending_ = false;
  bool is_finishing_ = false;
  bool failed_start_ = false;
};

}  // namespace

std::vector<std::string> agent_command_line(HostsJob const& job, std::string const& host) {
  auto words = agent_words(job.agent, host);
  // Said as it is: ssh hands the words to a shell, other commands run them.
  auto const program = own_program();
  if (shell_line(std::vector{program}) != program)
    throw Error(Errc::environment, "the path of this command, " + program +
                                       ", has letters that a remote shell would not take as they are; move it");
  words.push_back(program);
  words.emplace_back("agent");
  return words;
}

int run_on_hosts(HostsJob const& given) {
  auto job = given;
  job.policy.is_elastic = job.policy.max_restarts > 0;
  job.policy.max_restarts = 0;  // the agents do that
  job.of_each.version = version();
  job.of_each.job_id = random_id();
  if (job.of_each.secret.empty() && job.hosts.size() > 1) job.of_each.secret = random_secret();
  constexpr int kNoRank = -1;
  EventLog events = job.of_each.events.empty() ? EventLog() : EventLog(job.of_each.events, kNoRank);
  Agents agents(job);
  auto const plans = agents.plans();
  JobPolicy::Options goes_on;
  goes_on.survives = true;
  goes_on.min = 0;
  goes_on.are_members = true;
  int const status = supervise(plans, {.speaker = "holdfast run",
                                       .grace = std::chrono::duration<double>(job.of_each.grace_s),
                                       .time_limit = {},
                                       .policy = goes_on,
                                       .port = nullptr,
                                       .events = &events,
                                       .extension = &agents,
                                       .outlives_reader = false,
                                       .is_whole_job = false});
  if (status == 0 && agents.lost() > 0)
    std::fprintf(stderr, "holdfast run: %d of %d ranks were lost; the others went on and ended well\n", agents.lost(),
                 job.of_each.world_size);
  return status;
}

}  // namespace holdfast::launch
