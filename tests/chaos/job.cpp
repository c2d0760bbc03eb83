#include "job.hpp"

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace holdfast::chaos {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr auto kTick = 5ms;
constexpr auto kStartLimit = 60s;
constexpr auto kStallLimit = 10s;
constexpr auto kEndLimit = 20s;
constexpr std::uint64_t kRoundsBefore = 5;
constexpr std::uint64_t kRoundsAfter = 20;
constexpr std::size_t kFewest = 3;

/// Never reaches anything but one process: 0 and negative numbers mean groups, -1 everything there is.
void send_signal(pid_t pid, int signal) {
  if (pid > 1) ::kill(pid, signal);
}

fs::path fresh_folder() {
  // In memory where that is possible: under mpirun the transport's segments lie here as well.
  std::error_code ignored;
  auto const base = fs::is_directory("/dev/shm", ignored) ? fs::path("/dev/shm") : fs::temp_directory_path();
  std::string name = (base / "holdfast-chaos-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder: " + name);
  return name;
}

template <typename Condition>
bool happens_within(std::chrono::nanoseconds limit, Condition const& condition) {
  auto const until = Job::Clock::now() + limit;
  while (!condition()) {
    if (Job::Clock::now() > until) return false;
    std::this_thread::sleep_for(kTick);
  }
  return true;
}

}  // namespace

Counts& Counts::operator+=(Counts const& other) {
  kills += other.kills;
  stops += other.stops;
  continues += other.continues;
  cuts += other.cuts;
  heals += other.heals;
  joins += other.joins;
  evictions += other.evictions;
  view_changes += other.view_changes;
  parked_jobs += other.parked_jobs;
  return *this;
}

Job::Job(JobOptions options) : options_(std::move(options)), folder_(fresh_folder()), seats_(options_.members) {
  fs::create_directory(folder_ / "meet");
  board_ = std::make_unique<MappedBoard>(folder_ / "board", true);
  if (options_.fabric == "tcp") relay_ = std::make_unique<Relay>(**board_);
}

Job::~Job() {
  // Under mpirun members are no children of this process.
  for (std::size_t seat = 0; seat < seats(); ++seat)
    if (is_alive(seat)) send_signal(static_cast<pid_t>((*board_)->seats[seat].pid.load()), SIGKILL);
  for (auto const child : children_) {
    if (child <= 0) continue;  // reaped; kill(-1, ...) would be for every process of the machine
    // mpirun removes its own files when it may end by itself.
    if (options_.fabric != "mpi" || !happens_within(2s, [&] { return ::waitpid(child, nullptr, WNOHANG) != 0; })) {
      send_signal(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
  }
  relay_.reset();
  std::error_code ignored;
  if (!keeps_folder_) fs::remove_all(folder_, ignored);
}

void Job::say(std::string const& what) {
  auto const at = std::chrono::duration<double>(Clock::now() - began_).count();
  char text[200];
  std::snprintf(text, sizeof text, "  %8.3f s  %s\n", at, what.c_str());
  std::ofstream(folder_ / "events", std::ios::app) << text;
}

// --- starting ----------------------------------------------------------------------------------------------------

void Job::launch(std::vector<std::string> const& command, std::vector<std::string> const& variables, std::string log) {
  auto const child = ::fork();
  if (child < 0) throw std::runtime_error("cannot start a process");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (auto const& variable : variables) ::putenv(::strdup(variable.c_str()));
    int const file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    std::vector<char*> arguments;
    for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  children_.push_back(child);
}

std::vector<std::string> Job::settings() const {
  return {
      "HOLDFAST_ON_LOSS=shrink",
      "HOLDFAST_QUORUM=majority",
      "HOLDFAST_HEARTBEAT_TIMEOUT_MS=500",
      "HOLDFAST_ARENA_BYTES=67108864",
      "HOLDFAST_LOG_LEVEL=info",
      "HOLDFAST_EVENT_LOG=" + (folder_ / "log.%r.jsonl").string(),
      "OMP_NUM_THREADS=1",
  };
}

std::string Job::rendezvous() const {
  return "file://" + (folder_ / "meet").string();
}

void Job::start_member(std::size_t seat, std::vector<std::string> const& place) {
  auto variables = settings();
  variables.insert(variables.end(), place.begin(), place.end());
  launch({fs::read_symlink("/proc/self/exe").string(), "member", folder_.string(), options_.fabric,
          std::to_string(seat), std::to_string(relay_ ? relay_->port() : 0)},
         variables, folder_ / ("output." + std::to_string(seat)));
}

std::string Job::start() {
  began_ = Clock::now();
  auto const self = fs::read_symlink("/proc/self/exe").string();
  if (options_.fabric == "mpi") {
    std::vector<std::string> command;
    std::istringstream words(options_.mpirun);
    for (std::string word; words >> word;) command.push_back(word);
    command.insert(command.end(),
                   {"--mca", "btl_sm_backing_directory", folder_.string(), "-n", std::to_string(options_.members), self,
                    "member", folder_.string(), "mpi", "mpi", "0"});
    launch(command, settings(), folder_ / "output.mpirun");
  } else {
    for (std::size_t seat = 0; seat < options_.members; ++seat)
      start_member(seat,
                   {"HOLDFAST_RANK=" + std::to_string(seat), "HOLDFAST_WORLD_SIZE=" + std::to_string(options_.members),
                    "HOLDFAST_RENDEZVOUS=" + rendezvous()});
  }
  bool const runs = happens_within(kStartLimit, [&] {
    for (std::size_t seat = 0; seat < seats(); ++seat)
      if ((*board_)->seats[seat].round.load() < kRoundsBefore) return false;
    return true;
  });
  moved_at_ = Clock::now();
  say("all run");
  return runs ? "" : "the members of a job did not start within 60 s";
}

// --- who is there ------------------------------------------------------------------------------------------------

bool Job::is_alive(std::size_t seat) const {
  auto const pid = (*board_)->seats[seat].pid.load();
  if (pid == 0 || killed_.contains(seat)) return false;
  // A zombie has no program any more, and whoever got its number later has another one.
  std::error_code error;
  auto const program = fs::read_symlink("/proc/" + std::to_string(pid) + "/exe", error);
  return !error && program == fs::read_symlink("/proc/self/exe", error);
}

bool Job::is_running(std::size_t seat) const {
  return !killed_.contains(seat) && !stopped_.contains(seat) && (*board_)->seats[seat].ended.load() == 0;
}

Job::Newest Job::newest() const {
  Newest result;
  std::uint64_t members = 0;
  for (std::size_t seat = 0; seat < seats(); ++seat) {
    auto const& shown = (*board_)->seats[seat];
    if (auto const view = shown.view.load(); view > result.number) {
      result.number = view;
      members = shown.members.load();
    }
  }
  result.size = static_cast<std::size_t>(std::popcount(members));
  for (std::size_t seat = 0; seat < seats(); ++seat)
    if (auto const id = (*board_)->seats[seat].member.load(); id != 0 && (members >> (id - 1) & 1) != 0)
      result.seats.push_back(seat);
  return result;
}

std::vector<std::size_t> Job::running() const {
  std::vector<std::size_t> result;
  for (std::size_t seat = 0; seat < seats(); ++seat)
    if (is_running(seat) && (*board_)->seats[seat].pid.load() != 0) result.push_back(seat);
  return result;
}

std::vector<std::size_t> Job::running_in(Newest const& view) const {
  std::vector<std::size_t> result;
  for (auto const seat : view.seats)
    if (is_running(seat)) result.push_back(seat);
  return result;
}

bool Job::has_quorum(Newest const& view) const {
  auto const running = running_in(view);
  std::size_t dead = 0;
  for (auto const seat : view.seats) dead += killed_.contains(seat) ? 1 : 0;
  // Few enough to try all sets of members that hear each other.
  for (std::size_t set = 1; set < std::size_t{1} << running.size(); ++set) {
    std::vector<std::size_t> in;
    for (std::size_t index = 0; index < running.size(); ++index)
      if ((set >> index & 1) != 0) in.push_back(running[index]);
    bool is_connected = true;
    for (auto const a : in)
      for (auto const b : in)
        is_connected = is_connected && !(relay_ && (relay_->is_cut(a, b) || relay_->is_cut(b, a)));
    bool const is_majority = 2 * in.size() > view.size;
    bool const is_all_left = in.size() + dead == view.size && 2 * dead <= view.size;
    if (is_connected && (is_majority || is_all_left)) return true;
  }
  return false;
}

bool Job::can_have_quorum(Newest const& view, std::size_t more_deaths) const {
  std::size_t dead = more_deaths;
  for (auto const seat : view.seats) dead += killed_.contains(seat) || (*board_)->seats[seat].ended.load() != 0 ? 1 : 0;
  return 2 * dead <= view.size;
}

std::uint64_t Job::last_round() const {
  std::uint64_t last = 0;
  for (std::size_t seat = 0; seat < seats(); ++seat) last = std::max(last, (*board_)->seats[seat].round.load());
  return last;
}

// --- striking ----------------------------------------------------------------------------------------------------

void Job::strike(Event const& event) {
  auto const view = newest();
  if (event.fault == Fault::join) return add_member();
  // Newcomers on their way, too.
  auto const candidates = running();
  if (candidates.size() < 2) return;
  auto const pick = [](std::vector<std::size_t> const& from, double place) {
    return from[std::min(from.size() - 1, static_cast<std::size_t>(place * static_cast<double>(from.size())))];
  };
  auto const victim = pick(candidates, event.first);
  auto const pid = static_cast<pid_t>((*board_)->seats[victim].pid.load());
  auto const until = Clock::now() + event.lasts;
  std::string what(name(event.fault));
  what += " " + std::to_string(victim);
  switch (event.fault) {
    case Fault::kill:
      if (!can_have_quorum(view, 1)) return;
      killed_.insert(victim);
      send_signal(pid, SIGKILL);
      ++counts_.kills;
      break;
    case Fault::stop:
      stopped_.insert(victim);
      send_signal(pid, SIGSTOP);
      pending_.push_back({until, event.fault, victim, {}});
      ++counts_.stops;
      break;
    case Fault::join:
      return;
    case Fault::cut_link:
    case Fault::cut_one_way:
    case Fault::cut_off: {
      if (!relay_) return;
      auto others = candidates;
      std::erase(others, victim);
      Pending pending{until, event.fault, victim, {}};
      auto const other = pick(others, event.second);
      if (event.fault != Fault::cut_off) {
        others = {other};
        what += " to " + std::to_string(other);
      }
      for (auto const peer : others) {
        pending.links.emplace_back(victim, peer);
        if (event.fault != Fault::cut_one_way) pending.links.emplace_back(peer, victim);
      }
      for (auto const& [from, to] : pending.links) relay_->set_cut(from, to, true);
      pending_.push_back(std::move(pending));
      ++counts_.cuts;
      break;
    }
  }
  say(what + (event.fault == Fault::kill ? "" : " for " + std::to_string(event.lasts.count()) + " ms"));
}

void Job::add_member() {
  auto const there = running().size() + stopped_.size();
  if (there >= options_.members || seats_ == Board::kSeats) return;
  say("join " + std::to_string(seats_));
  start_member(seats_++, {"HOLDFAST_JOIN=" + rendezvous()});
}

void Job::end_fault(Pending const& pending) {
  if (pending.fault == Fault::stop) {
    stopped_.erase(pending.seat);
    if (killed_.contains(pending.seat)) return;
    send_signal(static_cast<pid_t>((*board_)->seats[pending.seat].pid.load()), SIGCONT);
    ++counts_.continues;
    say("continue " + std::to_string(pending.seat));
    return;
  }
  // Two cuts of one link: it is whole when the later one ends.
  for (auto const& [from, to] : pending.links) {
    bool const is_cut_again =
        std::any_of(pending_.begin(), pending_.end(), [&, link = std::pair(from, to)](auto const& one) {
          return &one != &pending && std::find(one.links.begin(), one.links.end(), link) != one.links.end();
        });
    if (!is_cut_again) relay_->set_cut(from, to, false);
  }
  ++counts_.heals;
  say("heal " + std::string(name(pending.fault)) + " " + std::to_string(pending.seat));
}

void Job::end_due(Clock::time_point now) {
  for (auto at = pending_.begin(); at != pending_.end();) {
    if (at->at > now) {
      ++at;
      continue;
    }
    end_fault(*at);
    at = pending_.erase(at);
  }
}

std::string Job::find_crash() {
  for (auto& child : children_) {
    int status = 0;
    if (child <= 0 || ::waitpid(child, &status, WNOHANG) != child) continue;
    auto const seat = static_cast<std::size_t>(&child - children_.data());
    child = 0;
    if (options_.fabric == "mpi" || killed_.contains(seat)) continue;
    if (WIFSIGNALED(status))
      return "seat " + std::to_string(seat) + " died by signal " + std::to_string(WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
      return "seat " + std::to_string(seat) + " ended with " + std::to_string(WEXITSTATUS(status));
  }
  for (std::size_t seat = 0; options_.fabric == "mpi" && seat < seats(); ++seat)
    if (is_running(seat) && (*board_)->seats[seat].pid.load() != 0 && !is_alive(seat) &&
        (*board_)->seats[seat].ended.load() == 0)
      return "seat " + std::to_string(seat) + " died by itself";
  return "";
}

std::string Job::watch(Clock::time_point now) {
  if (auto crash = find_crash(); !crash.empty()) return crash;
  auto const round = last_round();
  if (round != moved_round_ || !has_quorum(newest())) {
    moved_round_ = round;
    moved_at_ = now;
  }
  if (now - moved_at_ < kStallLimit) return "";
  auto const view = newest();
  std::string seats_in;
  for (auto const seat : view.seats) seats_in += " " + std::to_string(seat);
  return "no commit within 10 s after round " + std::to_string(round) + " of a live connected quorum of view " +
         std::to_string(view.number) + " (seats" + seats_in + ")";
}

std::string Job::run(Plan& plan, Clock::time_point until) {
  auto event = plan.next();
  auto due = Clock::now() + event.after;
  while (Clock::now() < until) {
    auto const now = Clock::now();
    end_due(now);
    if (auto wrong = watch(now); !wrong.empty()) return wrong;
    auto const view = newest();
    if (view.size < kFewest) break;
    if (pending_.empty() && !can_have_quorum(view, 0)) break;
    if (now >= due) {
      strike(event);
      event = plan.next();
      due = now + event.after;
    }
    std::this_thread::sleep_for(kTick);
  }
  return "";
}

// --- ending ------------------------------------------------------------------------------------------------------

std::string Job::finish() {
  say("the end begins");
  for (auto& pending : std::exchange(pending_, {})) end_fault(pending);
  // Members that were left behind learn it while the others still go on.
  std::string wrong;
  auto const settles = [&] {
    wrong = watch(Clock::now());
    if (!wrong.empty()) return true;
    auto const view = newest();
    if (!can_have_quorum(view, 0)) return true;
    for (std::size_t seat = 0; seat < seats(); ++seat) {
      bool const is_in = std::find(view.seats.begin(), view.seats.end(), seat) != view.seats.end();
      if (is_running(seat) && (!is_in || (*board_)->seats[seat].view.load() != view.number)) return false;
    }
    return true;
  };
  bool const has_settled = happens_within(kEndLimit, settles);
  auto const view = newest();
  counts_.view_changes = view.number - (view.number > 0 ? 1 : 0);
  if (wrong.empty() && !has_settled)
    wrong = "not every member learnt of view " + std::to_string(view.number) + " within 20 s";
  if (!wrong.empty()) return wrong;
  if (!can_have_quorum(view, 0)) {
    ++counts_.parked_jobs;
    for (std::size_t seat = 0; seat < seats(); ++seat)
      if (is_running(seat))
        killed_.insert(seat), send_signal(static_cast<pid_t>((*board_)->seats[seat].pid.load()), SIGKILL);
    return "";
  }
  (*board_)->stop_after.store(last_round() + kRoundsAfter);
  auto const all = [&](auto const& is_so) {
    for (std::size_t seat = 0; seat < seats(); ++seat)
      if (!killed_.contains(seat) && !is_so(seat)) return false;
    return true;
  };
  bool const is_done = happens_within(
      kEndLimit, [&] { return all([&](auto seat) { return (*board_)->seats[seat].ended.load() != 0; }); });
  if (!is_done) return "a member did not reach the last round within 20 s";
  if (!happens_within(kEndLimit, [&] { return all([&](auto seat) { return !is_alive(seat); }); }))
    return "a member reached its end, but its process did not end within 20 s";
  wrong = find_crash();
  for (std::size_t seat = 0; seat < seats(); ++seat)
    counts_.joins += seat >= options_.members && (*board_)->seats[seat].round.load() > 0 ? 1 : 0;
  for (std::size_t seat = 0; seat < seats(); ++seat)
    counts_.evictions += (*board_)->seats[seat].ended.load() > 1 ? 1 : 0;
  return wrong;
}

}  // namespace holdfast::chaos
