#include "agent.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/version.hpp>

#include "commands.hpp"
#include "host_address.hpp"
#include "supervisor_socket.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

using namespace std::chrono_literals;

constexpr auto kJobLimit = 60s;
// From this host being ready to all being so; the launcher gives up earlier.
constexpr auto kGoLimit = 300s;
constexpr auto kEventPeriod = 100ms;
constexpr std::size_t kLongestLine = std::size_t{8} << 20;

void report(AgentReport const& what) {
  auto const line = std::string(kReportMark) + encode(what) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

void write_private(std::filesystem::path const& path, std::string const& text) {
  Descriptor const file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.is_open() || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw Error(Errc::environment, "cannot write " + path.string() + ": " + std::strerror(errno));
}

}  // namespace

std::optional<std::string> LineReader::next(std::chrono::milliseconds limit) {
  auto const until = std::chrono::steady_clock::now() + limit;
  while (true) {
    if (auto const end = buffer_.find('\n'); end != std::string::npos) {
      auto line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (is_at_end_ || buffer_.size() > kLongestLine) return std::nullopt;
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd readable{fd_, POLLIN, 0};
    int const ready = ::poll(&readable, 1, static_cast<int>(std::max<long>(left, 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return std::nullopt;
    char bytes[16'384];
    auto const count = ::read(fd_, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      is_at_end_ = true;
    else
      buffer_.append(bytes, static_cast<std::size_t>(count));
  }
}

Agent::Agent() : launcher_(STDIN_FILENO) {
  auto const line = launcher_.next(kJobLimit);
  auto job = line ? decode_host_job(*line) : std::nullopt;
  if (!job) throw UsageError("no job on standard input; holdfast run --hosts starts this command");
  job_ = std::move(*job);
}

void Agent::prepare() {
  if (job_.version != version())
    throw Error(Errc::mismatch, "this is holdfast " + std::string(version()) + ", the launcher is " + job_.version +
                                    "; install the same build on every host");
  if (::chdir(job_.folder.c_str()) != 0)
    throw Error(Errc::environment, "cannot enter '" + job_.folder + "' (" + std::strerror(errno) +
                                       "); run from a folder that every host has");
  for (auto const& [name, value] : job_.environment) ::setenv(name.c_str(), value.c_str(), 1);
  if (!job_.secret.empty()) write_private(folder_.path() / "secret", job_.secret);
  if (!job_.events.empty()) events_ = std::make_unique<EventTail>(folder_.path() / "events");
  if (!job_.log_dir.empty()) std::filesystem::create_directories(job_.log_dir);
}

std::map<std::string, std::string> Agent::variables() const {
  std::map<std::string, std::string> variables{{"HOLDFAST_JOB_ID", job_.job_id},
                                               {"HOLDFAST_SUPERVISOR", port_->address()}};
  if (!job_.secret.empty()) variables["HOLDFAST_JOB_SECRET_FILE"] = (folder_.path() / "secret").string();
  if (events_) variables["HOLDFAST_EVENT_LOG"] = (folder_.path() / "events").string();
  return variables;
}

std::vector<ProcessPlan> Agent::make_plans(std::map<std::string, std::string> const& variables) const {
  std::vector<ProcessPlan> plans;
  for (int local = 0; local < job_.ranks; ++local) {
    PlaceInJob const place{job_.first_rank + local, job_.world_size, local, job_.ranks};
    auto plan = plan_rank(place, job_.command, variables, rendezvous_);
    plan.passes_output_through = place.rank == 0;
    plan.is_muted = job_.is_quiet && place.rank != 0;
    plan.outlives_reader = true;
    if (!job_.log_dir.empty()) {
      auto const stem = std::filesystem::path(job_.log_dir) / ("rank-" + std::to_string(place.rank));
      plan.output_log = stem.string() + ".out";
      plan.error_log = stem.string() + ".err";
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

int Agent::run() {
  // The launcher's end hangs up on us; what that means is for the ranks to decide.
  std::signal(SIGHUP, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  AgentReport ready{.kind = AgentReport::Kind::ready};
  try {
    prepare();
    SupervisorSocket const socket(folder_.path());
    port_ = std::make_unique<SupervisorPort>(socket.path(), job_.fences);
    char const* const bound = std::getenv("HOLDFAST_BIND_ADDRESS");
    ready.text = bound != nullptr && *bound != '\0' ? bound : host_address();
    ready.number = job_.first_rank == 0 ? free_port(ready.text) : 0;
    report(ready);
    auto const line = launcher_.next(kGoLimit);
    auto const go = line ? decode_command(*line) : std::nullopt;
    if (!go || go->kind != AgentCommand::Kind::go) return 1;  // the launcher has given up, or is gone
    rendezvous_ = go->text;
    plans_ = make_plans(variables());
    JobPolicy::Options policy;
    policy.survives = job_.survives;
    policy.min = 0;  // the launcher counts
    policy.max_restarts = job_.max_restarts;
    Supervisor supervisor(plans_, {.speaker = "holdfast run: " + job_.host,
                                   .grace = std::chrono::duration<double>(job_.grace_s),
                                   .time_limit = {},
                                   .policy = policy,
                                   .port = port_.get(),
                                   .events = nullptr,
                                   .extension = this,
                                   .outlives_reader = true,
                                   .is_whole_job = false});
    int const status = supervisor.run();
    forward_events(supervisor);
    // The launcher knows how each rank ended; where it is gone, our own status is all there is.
    return is_alone_ ? status : 0;
  } catch (Error const& error) {
    report({.kind = AgentReport::Kind::refused, .text = error.what()});
    return 1;
  }
}

std::optional<ChildProcess::Clock::time_point> Agent::next_turn() const {
  if (!events_) return alive_at_;
  return std::min(alive_at_, ChildProcess::Clock::now() + kEventPeriod);
}

void Agent::turn(Supervisor& supervisor) {
  while (auto const line = launcher_.next(0ms))
    if (auto const command = decode_command(*line)) heed(supervisor, *command);
  if (launcher_.is_at_end() && !is_alone_) lose_launcher(supervisor);
  forward_events(supervisor);
  auto const now = ChildProcess::Clock::now();
  if (now < alive_at_) return;
  alive_at_ = now + kAlivePeriod;
  if (!is_alone_)
    supervisor.write_line(std::string(kReportMark) + encode(AgentReport{.kind = AgentReport::Kind::alive}));
}

void Agent::lose_launcher(Supervisor& supervisor) {
  is_alone_ = true;
  supervisor.say("the launcher is gone; the ranks here go on while they have a quorum");
}

void Agent::forward_events(Supervisor& supervisor) {
  if (!events_) return;
  auto const lines = events_->take();
  if (!is_alone_) {
    for (auto const& line : lines)
      supervisor.write_line(std::string(kReportMark) +
                            encode(AgentReport{.kind = AgentReport::Kind::event, .text = line}));
    return;
  }
  if (lines.empty()) return;
  std::ofstream file(job_.events, std::ios::app);
  for (auto const& line : lines) file << line << '\n';
}

void Agent::heed(Supervisor& supervisor, AgentCommand const& command) {
  switch (command.kind) {
    case AgentCommand::Kind::signal:
      switch (command.number) {
        case SIGTERM:
        case SIGINT:
        case SIGHUP:
          return supervisor.stop(static_cast<int>(command.number));
        case SIGUSR1:
        case SIGUSR2:
        case SIGKILL:
          return supervisor.signal_all(static_cast<int>(command.number));
        default:
          return;
      }
    case AgentCommand::Kind::certify:
      return port_->certify(command.text, MemberId{static_cast<std::uint64_t>(command.number)});
    case AgentCommand::Kind::finishing:
      return supervisor.stop_restarting();
    case AgentCommand::Kind::reach:
      for (auto& plan : plans_) set_join(plan, command.text);
      return;
    case AgentCommand::Kind::go:
      return;
  }
}

void Agent::on_started(Supervisor& supervisor, int index) {
  supervisor.write_line(std::string(kReportMark) + encode(AgentReport{.kind = AgentReport::Kind::started,
                                                                      .rank = job_.first_rank + index,
                                                                      .number = supervisor.pid_of(index)}));
}

void Agent::on_ended(Supervisor& supervisor, int index, siginfo_t const& end) {
  AgentReport const ended{.kind = AgentReport::Kind::ended,
                          .rank = job_.first_rank + index,
                          .number = status_of(end),
                          .flag = end.si_code != CLD_EXITED,
                          .is_restarted = supervisor.policy().is_waiting(index),
                          .text = describe_end(end)};
  supervisor.write_line(std::string(kReportMark) + encode(ended));
}

void Agent::on_port(Supervisor& supervisor, SupervisorPort::Event const& event) {
  AgentReport told{.number = static_cast<std::int64_t>(event.member)};
  switch (event.change) {
    case SupervisorPort::Change::ended:
      told.kind = AgentReport::Kind::certificate;
      told.text = event.job;
      break;
    case SupervisorPort::Change::reported:
    case SupervisorPort::Change::reachable: {
      bool const is_address = event.change == SupervisorPort::Change::reachable;
      told.kind = is_address ? AgentReport::Kind::reachable : AgentReport::Kind::member;
      told.text = is_address ? event.detail : event.job;
      auto const index = supervisor.index_of(event.pid);
      if (index < 0) return;
      told.rank = job_.first_rank + index;
      break;
    }
    case SupervisorPort::Change::fenced:
      return;
  }
  supervisor.write_line(std::string(kReportMark) + encode(told));
}

int agent_command(int argc, char** /*argv*/) {
  if (argc != 1) throw UsageError("this command is started by holdfast run --hosts; it takes no arguments");
  return Agent().run();
}

}  // namespace holdfast::launch
