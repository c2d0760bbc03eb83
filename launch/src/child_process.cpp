#include "child_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::launch {
namespace {

constexpr int kNotExecutable = 127;
constexpr std::chrono::seconds kDrainLimit{1};

[[noreturn]] void throw_system(std::string const& what) {
  throw Error(Errc::environment, what + ": " + std::strerror(errno));
}

std::array<Descriptor, 2> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw_system("cannot make a pipe (limit of open files? see `ulimit -n`)");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

Descriptor open_log(std::filesystem::path const& path, bool goes_on) {
  if (path.empty()) return {};
  int const mode = goes_on ? O_APPEND : O_TRUNC;
  Descriptor log(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | mode, 0644));
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

std::vector<char*> pointers_to(std::vector<std::string> const& words) {
  std::vector<char*> pointers;
  for (auto const& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

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

// --- streams -----------------------------------------------------------------------------------------------------

void ChildStream::pump(bool is_late) {
  static std::array<char, 64 * 1024> buffer;
  // A process that never stops writing must not keep us from the others, nor from signals.
  constexpr int kReadsPerTurn = 16;
  for (int reads = 0; reads < kReadsPerTurn && is_wanted(); ++reads) {
    // With no reader and no log, writers learn of it as in any pipeline.
    if (sink != nullptr && sink->is_gone() && !log.is_open() && !outlives_reader) {
      pipe.reset();
      return;
    }
    ssize_t const count = read(pipe.get(), buffer.data(), buffer.size());
    if (count > 0) {
      std::string_view const bytes(buffer.data(), static_cast<std::size_t>(count));
      if (log.is_open()) write_all(log.get(), bytes);
      if (sink == nullptr) continue;
      if (is_raw)
        sink->pending() += bytes;
      else
        lines.feed(bytes, sink->pending());
      sink->flush();
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    bool const is_empty = count < 0 && errno == EAGAIN;
    if (is_empty && !is_late) return;
    if (sink != nullptr) lines.finish(sink->pending());
    pipe.reset();
    log.reset();
  }
}

// --- the process -------------------------------------------------------------------------------------------------

int ChildProcess::start(bool as_newcomer, Sink& out, Sink& err, sigset_t const& mask) {
  auto const& plan = *plan_;
  auto status = make_pipe();
  Descriptor child_output, child_errors;
  output = {};
  errors = {};
  output.outlives_reader = errors.outlives_reader = plan.outlives_reader;
  output.log = open_log(plan.output_log, as_newcomer);
  errors.log = open_log(plan.error_log, as_newcomer);
  bool const keeps_output = plan.passes_output_through && plan.output_log.empty();
  if (!keeps_output) {
    auto ends = make_pipe();
    output.pipe = std::move(ends[0]);
    child_output = std::move(ends[1]);
    if (!plan.is_muted) output.sink = &out;
    output.is_raw = plan.passes_output_through;
    if (!output.is_raw) output.lines = LinePrefixer(prefix_for(plan, out));
  }
  bool const keeps_errors = !plan.prefixes_errors && plan.error_log.empty();
  if (!keeps_errors) {
    auto ends = make_pipe();
    errors.pipe = std::move(ends[0]);
    child_errors = std::move(ends[1]);
    errors.sink = &err;
    errors.lines = LinePrefixer(prefix_for(plan, err), plan.takes_line);
  }
  Descriptor input;
  input_.reset();
  pending_input_.clear();
  if (plan.input) {
    auto ends = make_pipe();
    input = std::move(ends[0]);
    input_ = std::move(ends[1]);
    fcntl(input_.get(), F_SETFL, O_NONBLOCK);
  } else if (!plan.reads_input || isatty(STDIN_FILENO) != 0 || as_newcomer) {
    input = Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }

  auto const arguments = pointers_to(plan.command);
  auto const environment = pointers_to(as_newcomer ? plan.newcomer_environment : plan.environment);
  pid_t const parent = getpid();
  started_ = Clock::now();
  ended_.reset();
  pid_ = fork();
  if (pid_ < 0) throw_system("cannot start a process (limit of processes? see `ulimit -u`)");
  if (pid_ == 0) {
    setpgid(0, 0);
    if (plan.orphan_signal != 0) prctl(PR_SET_PDEATHSIG, plan.orphan_signal);
    if (getppid() != parent) _exit(1);  // we died before the line above took effect
    if (input.is_open()) dup2(input.get(), STDIN_FILENO);
    if (child_output.is_open()) dup2(child_output.get(), STDOUT_FILENO);
    if (child_errors.is_open()) dup2(child_errors.get(), STDERR_FILENO);
    // Shells start background jobs with SIGINT ignored; what we forward must arrive all the same.
    for (int const signal : {SIGPIPE, SIGINT}) std::signal(signal, SIG_DFL);
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    execvpe(arguments.front(), arguments.data(), environment.data());
    int const error = errno;
    [[maybe_unused]] auto const written = write(status[1].get(), &error, sizeof error);
    _exit(kNotExecutable);
  }
  setpgid(pid_, pid_);  // here too: whoever comes first, signals reach the group from now on
  status[1].reset();
  int error = 0;
  ssize_t count = 0;
  do count = read(status[0].get(), &error, sizeof error);
  while (count < 0 && errno == EINTR);
  pidfd_ = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  if (!pidfd_.is_open()) {
    kill(pid_, SIGKILL);
    throw_system("pidfd_open (needs Linux 5.3)");
  }
  for (auto* const stream : {&output, &errors})
    if (stream->pipe.is_open()) fcntl(stream->pipe.get(), F_SETFL, O_NONBLOCK);
  if (plan.input) feed(*plan.input);
  return count == sizeof error ? error : 0;
}

std::optional<siginfo_t> ChildProcess::reap() {
  siginfo_t end{};
  if (!is_running() || waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      end.si_pid == 0)
    return std::nullopt;
  // While the process is a zombie its group cannot be anybody else's.
  kill(-pid_, SIGKILL);
  waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG);
  ended_ = Clock::now();
  input_.reset();
  pending_input_.clear();
  pump();
  return end;
}

void ChildProcess::signal_group(int signal) const {
  if (is_running()) kill(-pid_, signal);
}

void ChildProcess::feed(std::string_view bytes) {
  if (!input_.is_open()) return;
  pending_input_ += bytes;
  write_input();
}

void ChildProcess::write_input() {
  while (!pending_input_.empty()) {
    ssize_t const count = write(input_.get(), pending_input_.data(), pending_input_.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {  // it reads no more
      input_.reset();
      pending_input_.clear();
      return;
    }
    pending_input_.erase(0, static_cast<std::size_t>(count));
  }
}

void ChildProcess::pump() {
  write_input();
  bool const is_late = ended_ && Clock::now() >= *ended_ + kDrainLimit;
  output.pump(is_late);
  errors.pump(is_late);
}

std::optional<ChildProcess::Clock::time_point> ChildProcess::drained_by() const {
  if (!ended_ || !(output.is_wanted() || errors.is_wanted())) return std::nullopt;
  return *ended_ + kDrainLimit;
}

}  // namespace holdfast::launch
