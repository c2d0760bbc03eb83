#include "supervisor.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

#include "descriptor.hpp"
#include "output.hpp"

namespace holdfast::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kTermToKill{2};
// A process that left our process group may keep a pipe open; its output is not waited for longer than this.
constexpr std::chrono::seconds kDrainLimit{1};

[[noreturn]] void throw_system(std::string const& what) {
  throw Error(Errc::environment, what + ": " + std::strerror(errno));
}

std::array<Descriptor, 2> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw_system("cannot make a pipe (limit of open files? see `ulimit -n`)");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::string describe_end(siginfo_t const& end) {
  if (end.si_code == CLD_EXITED) return "exited with status " + std::to_string(end.si_status);
  std::string text = "ended by signal " + std::to_string(end.si_status);
  if (char const* const meaning = sigdescr_np(end.si_status)) text += " (" + std::string(meaning) + ")";
  if (end.si_code == CLD_DUMPED) text += ", core dumped";
  return text;
}

int status_of(siginfo_t const& end) {
  return end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status;
}

std::string seconds_text(Clock::duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", std::chrono::duration<double>(duration).count());
  return text;
}

// One pipe from a process, and where its bytes go.
struct Stream {
  Descriptor pipe;
  Descriptor log;
  Sink* sink = nullptr;
  LinePrefixer lines{""};
};

struct Process {
  ProcessPlan const* plan = nullptr;
  pid_t pid = -1;
  Descriptor pidfd;
  Stream output;
  Stream errors;
  Clock::time_point started;
  std::optional<Clock::time_point> ended;
};

// Blocks the signals that we forward, for as long as it lives.
class SignalQueue {
 public:
  SignalQueue() {
    sigset_t wanted;
    sigemptyset(&wanted);
    for (int const signal : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGCHLD}) sigaddset(&wanted, signal);
    struct sigaction hangup {};
    sigaction(SIGHUP, nullptr, &hangup);
    if (hangup.sa_handler != SIG_IGN) sigaddset(&wanted, SIGHUP);  // ignored under nohup
    sigprocmask(SIG_BLOCK, &wanted, &before_);
    fd_ = Descriptor(signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd_.is_open()) throw_system("signalfd");
    pipe_before_ = std::signal(SIGPIPE, SIG_IGN);
  }
  SignalQueue(SignalQueue const&) = delete;
  SignalQueue& operator=(SignalQueue const&) = delete;
  ~SignalQueue() {
    std::signal(SIGPIPE, pipe_before_);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] sigset_t const& mask_before() const { return before_; }
  [[nodiscard]] std::optional<int> next() const {
    signalfd_siginfo info{};
    if (read(fd_.get(), &info, sizeof info) != sizeof info) return std::nullopt;
    return static_cast<int>(info.ssi_signo);
  }

 private:
  sigset_t before_{};
  Descriptor fd_;
  void (*pipe_before_)(int) = SIG_DFL;
};

Descriptor open_log(std::filesystem::path const& path) {
  if (path.empty()) return {};
  Descriptor log(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!log.is_open()) throw_system("cannot write the log file " + path.string());
  return log;
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t const count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;  // a full disk must not end the job; the terminal still has the lines
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

std::string prefix_for(ProcessPlan const& plan, Sink const& sink) {
  bool const is_coloured = plan.colour != 0 && isatty(sink.fd()) != 0 && std::getenv("NO_COLOR") == nullptr;
  return is_coloured ? "\033[" + std::to_string(plan.colour) + "m" + plan.prefix + "\033[0m" : plan.prefix;
}

class Supervisor {
 public:
  Supervisor(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options) : options_(options) {
    // Orphans of the processes become our children, so that we can find and end them.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    processes_.reserve(plans.size());
    for (auto const& plan : plans) {
      auto process = std::make_unique<Process>();
      process->plan = &plan;
      processes_.push_back(std::move(process));
    }
  }

  int run() {
    if (options_.time_limit)
      time_limit_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(*options_.time_limit);
    for (auto& process : processes_) {
      if (auto const error = start(*process)) {
        say("cannot execute '" + process->plan->command.front() + "': " + std::strerror(error));
        kill_all(SIGKILL);
        status_ = kNotExecutableStatus;
        is_status_final_ = true;
        break;
      }
    }
    while (!all_ended()) turn();
    // What is left behind may hold the pipes open.
    end_orphans();
    while (!all_drained()) turn();
    if (running_at_first_failure_ > 0 && !was_stopped_) say("first failure: " + first_failure_);
    finish_output();
    return status_;
  }

 private:
  bool all_ended() const {
    return std::all_of(processes_.begin(), processes_.end(),
                       [](auto const& process) { return process->pid < 0 || process->ended; });
  }

  bool all_drained() const {
    return std::all_of(processes_.begin(), processes_.end(), [](auto const& process) {
      return !process->output.pipe.is_open() && !process->errors.pipe.is_open();
    });
  }

  void say(std::string const& text) { err_.pending() += options_.speaker + ": " + text + '\n'; }

  // 0, or why the program cannot be executed.
  int start(Process& process) {
    auto const& plan = *process.plan;
    auto status = make_pipe();
    Descriptor child_output, child_errors;
    process.output.log = open_log(plan.output_log);
    process.errors.log = open_log(plan.error_log);
    bool const keeps_output = plan.passes_output_through && plan.output_log.empty();
    if (!keeps_output) {
      auto ends = make_pipe();
      process.output.pipe = std::move(ends[0]);
      child_output = std::move(ends[1]);
      if (!plan.is_muted) process.output.sink = &out_;
      if (!plan.passes_output_through) process.output.lines = LinePrefixer(prefix_for(plan, out_));
    }
    bool const keeps_errors = !plan.prefixes_errors && plan.error_log.empty();
    if (!keeps_errors) {
      auto ends = make_pipe();
      process.errors.pipe = std::move(ends[0]);
      child_errors = std::move(ends[1]);
      process.errors.sink = &err_;
      process.errors.lines = LinePrefixer(prefix_for(plan, err_));
    }
    Descriptor input;
    if (!plan.reads_input || isatty(STDIN_FILENO) != 0) input = Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));

    std::vector<char*> arguments, environment;
    for (auto const& word : plan.command) arguments.push_back(const_cast<char*>(word.c_str()));
    for (auto const& word : plan.environment) environment.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    environment.push_back(nullptr);

    pid_t const parent = getpid();
    process.started = Clock::now();
    process.pid = fork();
    if (process.pid < 0) throw_system("cannot start a process (limit of processes? see `ulimit -u`)");
    if (process.pid == 0) {
      setpgid(0, 0);
      prctl(PR_SET_PDEATHSIG, plan.orphan_signal);
      if (getppid() != parent) _exit(1);  // we died before the line above took effect
      if (input.is_open()) dup2(input.get(), STDIN_FILENO);
      if (child_output.is_open()) dup2(child_output.get(), STDOUT_FILENO);
      if (child_errors.is_open()) dup2(child_errors.get(), STDERR_FILENO);
      // Shells start background jobs with SIGINT ignored; what we forward must arrive all the same.
      for (int const signal : {SIGPIPE, SIGINT}) std::signal(signal, SIG_DFL);
      sigprocmask(SIG_SETMASK, &signals_.mask_before(), nullptr);
      execvpe(arguments.front(), arguments.data(), environment.data());
      int const error = errno;
      [[maybe_unused]] auto const written = write(status[1].get(), &error, sizeof error);
      _exit(kNotExecutableStatus);
    }
    setpgid(process.pid, process.pid);  // here too: whoever comes first, signals reach the group from now on
    status[1].reset();
    int error = 0;
    ssize_t count = 0;
    do count = read(status[0].get(), &error, sizeof error);
    while (count < 0 && errno == EINTR);
    process.pidfd = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
    if (!process.pidfd.is_open()) {
      kill(process.pid, SIGKILL);
      throw_system("pidfd_open (needs Linux 5.3)");
    }
    for (auto* const stream : {&process.output, &process.errors})
      if (stream->pipe.is_open()) fcntl(stream->pipe.get(), F_SETFL, O_NONBLOCK);
    return count == sizeof error ? error : 0;
  }

  void turn() {
    std::vector<pollfd> polled;
    polled.push_back({signals_.fd(), POLLIN, 0});
    for (auto const* const sink : {&out_, &err_})
      if (!sink->is_empty()) polled.push_back({sink->fd(), POLLOUT, 0});
    for (auto const& process : processes_) {
      if (process->pid >= 0 && !process->ended) polled.push_back({process->pidfd.get(), POLLIN, 0});
      for (auto const* const stream : {&process->output, &process->errors})
        if (is_wanted(*stream)) polled.push_back({stream->pipe.get(), POLLIN, 0});
    }
    poll(polled.data(), polled.size(), poll_timeout());

    while (auto const signal = signals_.next()) handle_signal(*signal);
    for (auto& process : processes_) {
      for (auto* const stream : {&process->output, &process->errors}) pump(*process, *stream);
      if (process->pid >= 0 && !process->ended) reap(*process);
    }
    handle_timers();
    out_.flush();
    err_.flush();
  }

  static bool is_wanted(Stream const& stream) {
    return stream.pipe.is_open() && (stream.sink == nullptr || stream.sink->accepts());
  }

  int poll_timeout() const {
    auto next = Clock::now() + std::chrono::hours(1);
    for (auto const& timer : {term_at_, kill_at_, time_limit_})
      if (timer) next = std::min(next, *timer);
    for (auto const& process : processes_)
      if (process->ended && (is_wanted(process->output) || is_wanted(process->errors)))
        next = std::min(next, *process->ended + kDrainLimit);
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
    return static_cast<int>(std::max<std::int64_t>(left, 0));
  }

  void pump(Process const& process, Stream& stream) {
    static std::array<char, 64 * 1024> buffer;
    // A process that never stops writing must not keep us from the others, nor from signals.
    constexpr int kReadsPerTurn = 16;
    for (int reads = 0; reads < kReadsPerTurn && is_wanted(stream); ++reads) {
      // With no reader and no log, writers learn of it as in any pipeline.
      if (stream.sink != nullptr && stream.sink->is_gone() && !stream.log.is_open()) {
        stream.pipe.reset();
        return;
      }
      ssize_t const count = read(stream.pipe.get(), buffer.data(), buffer.size());
      if (count > 0) {
        std::string_view const bytes(buffer.data(), static_cast<std::size_t>(count));
        if (stream.log.is_open()) write_all(stream.log.get(), bytes);
        if (stream.sink == nullptr) continue;
        if (&stream == &process.output && process.plan->passes_output_through)
          stream.sink->pending() += bytes;
        else
          stream.lines.feed(bytes, stream.sink->pending());
        stream.sink->flush();
        continue;
      }
      if (count < 0 && errno == EINTR) continue;
      bool const is_empty = count < 0 && errno == EAGAIN;
      bool const is_late = process.ended && Clock::now() >= *process.ended + kDrainLimit;
      if (is_empty && !is_late) return;
      if (stream.sink != nullptr) stream.lines.finish(stream.sink->pending());
      stream.pipe.reset();
      stream.log.reset();
    }
  }

  void reap(Process& process) {
    siginfo_t end{};
    if (waitid(P_PID, static_cast<id_t>(process.pid), &end, WEXITED | WNOHANG | WNOWAIT) != 0 || end.si_pid == 0)
      return;
    // While the process is a zombie its group cannot be anybody else's.
    kill(-process.pid, SIGKILL);
    waitid(P_PID, static_cast<id_t>(process.pid), &end, WEXITED | WNOHANG);
    process.ended = Clock::now();
    for (auto* const stream : {&process.output, &process.errors}) pump(process, *stream);

    int const status = status_of(end);
    if (status == 0 || is_status_final_) return;
    std::string const reason = process.plan->label + " (pid " + std::to_string(process.pid) + ") " + describe_end(end) +
                               " after " + seconds_text(*process.ended - process.started);
    say(reason);
    if (status_ == 0 || status_ == kRequeueStatus) status_ = status;
    if (failures_++ > 0) return;
    first_failure_ = reason;
    running_at_first_failure_ = std::count_if(processes_.begin(), processes_.end(),
                                              [](auto const& other) { return other->pid >= 0 && !other->ended; });
    if (!kill_at_) {
      auto const grace = std::chrono::duration_cast<Clock::duration>(options_.grace);
      term_at_ = Clock::now() + grace;
      kill_at_ = *term_at_ + kTermToKill;
    }
  }

  void handle_signal(int signal) {
    switch (signal) {
      case SIGCHLD:
        reap_adopted();
        return;
      case SIGUSR1:
      case SIGUSR2:
        kill_all(signal);
        return;
      case SIGTSTP:
        // The processes are in groups of their own, so the terminal's stop reaches them through us alone.
        kill_all(SIGSTOP);
        raise(SIGSTOP);
        kill_all(SIGCONT);
        return;
      default:
        break;
    }
    if (signal == SIGINT && was_stopped_) {
      say("second interrupt: killing all");
      kill_all(SIGKILL);
      out_.drop();  // the reader may be what hangs
      return;
    }
    was_stopped_ = true;
    kill_all(signal);
    auto const limit = Clock::now() + std::chrono::duration_cast<Clock::duration>(options_.grace);
    if (!kill_at_ || limit < *kill_at_) kill_at_ = limit;
  }

  void handle_timers() {
    auto const now = Clock::now();
    if (time_limit_ && now >= *time_limit_) {
      time_limit_.reset();
      say("not finished within the time limit: killing all");
      if (status_ == 0) status_ = kTimeLimitStatus;
      kill_all(SIGKILL);
    }
    if (term_at_ && now >= *term_at_) {
      term_at_.reset();
      announce_end("ending");
      kill_all(SIGTERM);
    }
    if (kill_at_ && now >= *kill_at_) {
      // Again and again until all are gone, for a process may have been starting another.
      kill_at_ = now + std::chrono::seconds(1);
      announce_end("killing");
      kill_all(SIGKILL);
    }
  }

  void announce_end(std::string const& verb) {
    std::string labels;
    for (auto const& process : processes_)
      if (process->pid >= 0 && !process->ended) labels += (labels.empty() ? " " : ", ") + process->plan->label;
    if (!labels.empty()) say(verb + labels + ": still running after the grace period");
  }

  void kill_all(int signal) {
    for (auto const& process : processes_)
      if (process->pid >= 0 && !process->ended) kill(-process->pid, signal);
  }

  // Zombies that processes of ours left to us. The processes themselves are waited for by reap().
  void reap_adopted() {
    for (pid_t const pid : children()) {
      bool const is_ours =
          std::any_of(processes_.begin(), processes_.end(), [&](auto const& process) { return process->pid == pid; });
      if (!is_ours) waitpid(pid, nullptr, WNOHANG);
    }
  }

  static std::vector<pid_t> children() {
    std::ifstream list("/proc/self/task/" + std::to_string(getpid()) + "/children");
    std::vector<pid_t> pids;
    for (pid_t pid = 0; list >> pid;) pids.push_back(pid);
    return pids;
  }

  // A process that began a session of its own outlived its group; its own children come to us in turn.
  void end_orphans() {
    auto const limit = Clock::now() + kDrainLimit;
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
  void finish_output() {
    for (out_.flush(), err_.flush(); !out_.is_empty() || !err_.is_empty(); out_.flush(), err_.flush()) {
      std::vector<pollfd> polled{{signals_.fd(), POLLIN, 0}};
      for (auto const* const sink : {&out_, &err_})
        if (!sink->is_empty()) polled.push_back({sink->fd(), POLLOUT, 0});
      poll(polled.data(), polled.size(), -1);
      while (auto const signal = signals_.next())
        if (*signal == SIGINT || *signal == SIGTERM || *signal == SIGHUP) return;
    }
  }

  SupervisorOptions const& options_;
  SignalQueue signals_;
  Sink out_{STDOUT_FILENO};
  Sink err_{STDERR_FILENO};
  std::vector<std::unique_ptr<Process>> processes_;
  std::optional<Clock::time_point> term_at_, kill_at_, time_limit_;
  bool was_stopped_ = false;
  int status_ = 0;
  bool is_status_final_ = false;
  int failures_ = 0;
  std::ptrdiff_t running_at_first_failure_ = 0;
  std::string first_failure_;
};

}  // namespace

int supervise(std::vector<ProcessPlan> const& plans, SupervisorOptions const& options) {
  return Supervisor(plans, options).run();
}

}  // namespace holdfast::launch
