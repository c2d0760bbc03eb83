#include "supervisor.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {
namespace {

constexpr std::chrono::seconds kTermToKill{2};
constexpr std::chrono::seconds kOrphanLimit{1};

std::string seconds_text(ChildProcess::Clock::duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", std::chrono::duration<double>(duration).count());
  return text;
}

std::int64_t number(auto id) {
  return static_cast<std::int64_t>(id);
}

pid_t parent_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  auto const name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  char state = 0;
  pid_t parent = 0;
  fields >> state >> parent;
  return parent;
}

}  // namespace

struct Supervisor::Process {
  Process(int at, ProcessPlan const& plan) : index(at), child(plan) {}
  int index;
  ChildProcess child;
  std::optional<Clock::time_point> restart_at;
  std::vector<std::pair<std::string, MemberId>> members;  ///< that it has been
};

Supervisor::Supervisor(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options)
    : options_(options),
      out_(STDOUT_FILENO, options.outlives_reader),
      err_(STDERR_FILENO, options.outlives_reader),
      policy_(static_cast<int>(plans.size()), options.policy) {
  // Orphans of the processes become our children, so that we can find and end them.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (auto const& plan : plans) processes_.push_back(std::make_unique<Process>(number(processes_.size()), plan));
}

Supervisor::~Supervisor() = default;

int Supervisor::run() {
  if (options_.time_limit)
    time_limit_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(*options_.time_limit);
  for (auto& process : processes_) {
    if (start(*process, false)) continue;
    signal_all(SIGKILL);
    final_status_ = kNotExecutableStatus;
    break;
  }
  while (!all_ended()) turn();
  serve_port();
  // What is left behind may hold the pipes open.
  end_orphans();
  while (!all_drained()) turn();
  int status = final_status_.value_or(policy_.status());
  if (options_.extension != nullptr) status = options_.extension->status().value_or(status);
  if (options_.is_whole_job && running_at_first_failure_ > 0 && !was_stopped_ && policy_.lost() == 0 && status != 0)
    say("first failure: " + first_failure_);
  if (policy_.lost() > 0 && status == 0 && options_.is_whole_job)
    say(std::to_string(policy_.lost()) + " of " + std::to_string(processes_.size()) +
        " ranks were lost; the others went on and ended well");
  finish_output();
  return status;
}

void Supervisor::say(std::string const& text) {
  write_line(options_.speaker + ": " + text);
}

void Supervisor::write_line(std::string const& line) {
  err_.pending() += line + '\n';
}

void Supervisor::record(std::string const& event, EventLog::Fields const& fields) {
  if (options_.events != nullptr) options_.events->record(event, fields);
}

void Supervisor::signal_all(int signal) {
  for (auto const& process : processes_) process->child.signal_group(signal);
}

void Supervisor::kill_one(int index) {
  processes_[static_cast<std::size_t>(index)]->child.signal_group(SIGKILL);
}

void Supervisor::feed(int index, std::string_view bytes) {
  processes_[static_cast<std::size_t>(index)]->child.feed(bytes);
}

void Supervisor::stop(int signal) {
  was_stopped_ = true;
  restarts_ = false;
  policy_.on_ending();
  signal_all(signal);
  auto const limit = Clock::now() + std::chrono::duration_cast<Clock::duration>(options_.grace);
  if (!kill_at_ || limit < *kill_at_) kill_at_ = limit;
}

// --- the loop ----------------------------------------------------------------------------------------------------

bool Supervisor::all_ended() const {
  return std::none_of(processes_.begin(), processes_.end(), [&](auto const& process) {
    return process->child.is_running() || (restarts_ && process->restart_at);
  });
}

bool Supervisor::all_drained() const {
  return std::all_of(processes_.begin(), processes_.end(),
                     [](auto const& process) { return process->child.is_drained(); });
}

bool Supervisor::start(Process& process, bool as_newcomer) {
  process.restart_at.reset();
  auto const error = process.child.start(as_newcomer, out_, err_, signals_.mask_before());
  policy_.on_started(process.index, Clock::now());
  if (error != 0) {
    say("cannot execute '" + process.child.plan().command.front() + "': " + std::strerror(error));
    return false;
  }
  record("start",
         {{"process", number(process.index)}, {"pid", number(process.child.pid())}, {"newcomer", as_newcomer}});
  if (options_.extension != nullptr) options_.extension->on_started(*this, process.index);
  return true;
}

void Supervisor::turn() {
  std::vector<pollfd> polled;
  polled.push_back({signals_.fd(), POLLIN, 0});
  if (options_.port != nullptr) polled.push_back({options_.port->descriptor(), POLLIN, 0});
  if (options_.extension != nullptr && options_.extension->descriptor() >= 0)
    polled.push_back({options_.extension->descriptor(), POLLIN, 0});
  for (auto const* const sink : {&out_, &err_})
    if (!sink->is_empty()) polled.push_back({sink->fd(), POLLOUT, 0});
  for (auto const& process : processes_) {
    auto const& child = process->child;
    if (child.is_running()) polled.push_back({child.pidfd(), POLLIN, 0});
    if (child.input_to_wait_for() >= 0) polled.push_back({child.input_to_wait_for(), POLLOUT, 0});
    for (auto const* const stream : {&child.output, &child.errors})
      if (stream->is_wanted()) polled.push_back({stream->pipe.get(), POLLIN, 0});
  }
  poll(polled.data(), polled.size(), poll_timeout());

  while (auto const signal = signals_.next()) handle_signal(*signal);
  serve_port();
  for (auto& process : processes_) {
    process->child.pump();
    reap(*process);
  }
  if (options_.extension != nullptr) options_.extension->turn(*this);
  handle_timers();
  out_.flush();
  err_.flush();
}

int Supervisor::poll_timeout() const {
  auto next = Clock::now() + std::chrono::hours(1);
  for (auto const& timer : {term_at_, kill_at_, time_limit_})
    if (timer) next = std::min(next, *timer);
  if (options_.extension != nullptr)
    if (auto const at = options_.extension->next_turn()) next = std::min(next, *at);
  for (auto const& process : processes_) {
    if (process->restart_at) next = std::min(next, *process->restart_at);
    if (auto const limit = process->child.drained_by()) next = std::min(next, *limit);
  }
  auto const left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
  return static_cast<int>(std::max<std::int64_t>(left, 0));
}

void Supervisor::serve_port() {
  if (options_.port == nullptr) return;
  for (auto const& event : options_.port->serve()) {
    EventLog::Fields fields{{"job", event.job}, {"member", number(event.member)}, {"pid", event.pid}};
    switch (event.change) {
      case SupervisorPort::Change::reported:
        if (auto const index = index_of(event.pid); index >= 0) {
          policy_.on_member(index);
          fields.emplace_back("process", number(index));
        }
        record("member", fields);
        break;
      case SupervisorPort::Change::reachable:
        break;  // members record it themselves
      case SupervisorPort::Change::fenced:
        say("member " + std::to_string(number(event.member)) + " (pid " + std::to_string(event.pid) +
            ") is fenced: accused by member " + std::to_string(number(event.accuser)) + ", and " + event.detail);
        fields.emplace_back("by", number(event.accuser));
        fields.emplace_back("view", number(event.view));
        fields.emplace_back("evidence", event.detail);
        record("fence", fields);
        break;
      case SupervisorPort::Change::ended:
        record("certificate", fields);
        break;
    }
    if (options_.extension != nullptr) options_.extension->on_port(*this, event);
  }
}

pid_t Supervisor::pid_of(int index) const {
  return processes_[static_cast<std::size_t>(index)]->child.pid();
}

int Supervisor::index_of(std::int64_t pid) const {
  constexpr int kDeepest = 16;
  auto at = static_cast<pid_t>(pid);
  for (int depth = 0; depth < kDeepest && at > 1; ++depth, at = parent_of(at))
    for (auto const& process : processes_)
      if (process->child.pid() == at) return process->index;
  return -1;
}

// --- ends --------------------------------------------------------------------------------------------------------

void Supervisor::reap(Process& process) {
  auto const end = process.child.reap();
  if (!end) return;
  // It may have become a member, and ended, since the port was looked at.
  serve_port();
  int const status = status_of(*end);
  auto const& label = process.child.plan().label;
  if (options_.is_whole_job)
    record("exit", {{"process", number(process.index)},
                    {"pid", number(process.child.pid())},
                    {"status", std::int64_t{status}},
                    {"reason", describe_end(*end)}});
  auto const decision = policy_.on_ended(process.index, status, end->si_code != CLD_EXITED, Clock::now());
  if (options_.extension != nullptr) options_.extension->on_ended(*this, process.index, *end);
  if (status == 0 || final_status_) return;
  std::string const reason = label + " (pid " + std::to_string(process.child.pid()) + ") " + describe_end(*end) +
                             " after " + seconds_text(process.child.lifetime());
  say(reason);
  heed(process, decision, reason);
}

void Supervisor::heed(Process& process, JobPolicy::Decision const& decision, std::string const& reason) {
  if (failures_++ == 0) {
    first_failure_ = reason;
    running_at_first_failure_ = std::count_if(processes_.begin(), processes_.end(),
                                              [](auto const& other) { return other->child.is_running(); });
  }
  switch (decision.step) {
    case JobPolicy::Step::go_on:
      return;
    case JobPolicy::Step::restart: {
      process.restart_at = decision.restart_at;
      auto const pause = std::max<Clock::duration>(decision.restart_at - Clock::now(), Clock::duration::zero());
      say(process.child.plan().label + " is started again in " + seconds_text(pause) + " (" +
          std::to_string(decision.restarts) + " of " + std::to_string(options_.policy.max_restarts) + " restarts)");
      record("restart", {{"process", number(process.index)},
                         {"restarts", std::int64_t{decision.restarts}},
                         {"after_ms", std::chrono::duration_cast<std::chrono::milliseconds>(pause).count()}});
      return;
    }
    case JobPolicy::Step::end:
      return give_grace();
    case JobPolicy::Step::stop:
      say("fewer than " + std::to_string(options_.policy.min) + " ranks are left: ending the job");
      record("stop", {{"min", std::int64_t{options_.policy.min}}});
      return stop(SIGTERM);
  }
}

void Supervisor::give_grace() {
  if (kill_at_) return;
  auto const grace = std::chrono::duration_cast<Clock::duration>(options_.grace);
  term_at_ = Clock::now() + grace;
  kill_at_ = *term_at_ + kTermToKill;
}

void Supervisor::handle_signal(int signal) {
  switch (signal) {
    case SIGCHLD:
      return reap_adopted();
    case SIGTSTP:
      // The processes are in groups of their own, so the terminal's stop reaches them through us alone.
      signal_all(SIGSTOP);
      raise(SIGSTOP);
      signal_all(SIGCONT);
      return;
    default:
      break;
  }
  if (options_.extension != nullptr && options_.extension->on_signal(*this, signal)) return;
  if (signal == SIGUSR1 || signal == SIGUSR2) return signal_all(signal);
  if (signal == SIGINT && was_stopped_) {
    say("second interrupt: killing all");
    signal_all(SIGKILL);
    out_.drop();  // the reader may be what hangs
    return;
  }
  stop(signal);
}

void Supervisor::handle_timers() {
  auto const now = Clock::now();
  if (time_limit_ && now >= *time_limit_) {
    time_limit_.reset();
    say("not finished within the time limit: killing all");
    if (!final_status_ && policy_.status() == 0) final_status_ = kTimeLimitStatus;
    restarts_ = false;
    signal_all(SIGKILL);
  }
  if (term_at_ && now >= *term_at_) {
    term_at_.reset();
    restarts_ = false;
    policy_.on_ending();
    announce_end("ending");
    signal_all(SIGTERM);
  }
  if (kill_at_ && now >= *kill_at_) {
    // Again and again until all are gone, for a process may have been starting another.
    kill_at_ = now + std::chrono::seconds(1);
    announce_end("killing");
    signal_all(SIGKILL);
  }
  for (auto& process : processes_) {
    if (!process->restart_at || !restarts_ || now < *process->restart_at) continue;
    if (policy_.is_finishing()) {
      process->restart_at.reset();
      continue;
    }
    if (start(*process, true)) continue;
    signal_all(SIGKILL);
    final_status_ = kNotExecutableStatus;
    restarts_ = false;
  }
  end_latecomers();
}

/// The job is done, and who is still here was started too late to become a member of it.
void Supervisor::end_latecomers() {
  if (kill_at_ || !policy_.is_finishing()) return;
  bool is_somebody_late = false;
  for (auto const& process : processes_) {
    if (!process->child.is_running()) continue;
    if (!policy_.is_restarted(process->index)) return;
    is_somebody_late = true;
  }
  if (is_somebody_late) give_grace();
}

void Supervisor::announce_end(std::string const& verb) {
  std::string labels;
  for (auto const& process : processes_)
    if (process->child.is_running()) labels += (labels.empty() ? " " : ", ") + process->child.plan().label;
  if (!labels.empty()) say(verb + labels + ": still running after the grace period");
}

// --- what processes leave behind ---------------------------------------------------------------------------------

namespace {

std::vector<pid_t> children() {
  std::ifstream list("/proc/self/task/" + std::to_string(getpid()) + "/children");
  std::vector<pid_t> pids;
  for (pid_t pid = 0; list >> pid;) pids.push_back(pid);
  return pids;
}

}  // namespace

// Zombies that processes of ours left to us. The processes themselves are waited for by reap().
void Supervisor::reap_adopted() {
  for (pid_t const pid : children()) {
    bool const is_ours = std::any_of(processes_.begin(), processes_.end(),
                                     [&](auto const& process) { return process->child.pid() == pid; });
    if (!is_ours) waitpid(pid, nullptr, WNOHANG);
  }
}

// A process that began a session of its own outlived its group; its own children come to us in turn.
void Supervisor::end_orphans() {
  auto const limit = Clock::now() + kOrphanLimit;
  for (auto pids = children(); !pids.empty() && Clock::now() < limit; pids = children()) {
    for (pid_t const pid : pids) kill(pid, SIGKILL);
    for (pid_t const pid : pids) {
      Descriptor const pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
      pollfd ended{pidfd.get(), POLLIN, 0};
      poll(&ended, 1, 100);
      waitpid(pid, nullptr, WNOHANG);
    }
  }
}

// The reader decides how long this takes, as with any program; an interrupt ends it.
void Supervisor::finish_output() {
  for (out_.flush(), err_.flush(); !out_.is_empty() || !err_.is_empty(); out_.flush(), err_.flush()) {
    std::vector<pollfd> polled{{signals_.fd(), POLLIN, 0}};
    for (auto const* const sink : {&out_, &err_})
      if (!sink->is_empty()) polled.push_back({sink->fd(), POLLOUT, 0});
    poll(polled.data(), polled.size(), -1);
    while (auto const signal = signals_.next())
      if (*signal == SIGINT || *signal == SIGTERM || *signal == SIGHUP) return;
  }
}

int supervise(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options) {
  return Supervisor(plans, options).run();
}

}  // namespace holdfast::launch
