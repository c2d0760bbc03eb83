#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>
#include <holdfast/runtime/supervisor_port.hpp>

#include "../protocol/fencing.hpp"
#include "../text.hpp"
#include "wire.hpp"

namespace holdfast {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostConnections = 4'096;
// What waits for a member that does not read: certificates are small and few.
constexpr std::size_t kMostPending = std::size_t{1} << 16;
// An accusation that is not repeated for this long is withdrawn.
constexpr std::chrono::milliseconds kAccusationStands{500};
constexpr std::size_t kMostAccusations = 65'536;

class Handle {
 public:
  explicit Handle(int fd = -1) : fd_(fd) {}
  Handle(Handle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Handle() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }

 private:
  int fd_;
};

[[noreturn]] void refuse(std::filesystem::path const& socket, std::string const& reason) {
  throw Error(Errc::environment, "cannot listen at " + socket.string() + ": " + reason);
}

Handle listen_at(std::filesystem::path const& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto const text = path.string();
  if (text.size() >= sizeof address.sun_path)
    refuse(path, "the path has " + std::to_string(text.size()) + " bytes, more than " +
                     std::to_string(sizeof address.sun_path - 1) + "; set TMPDIR to a shorter one");
  std::memcpy(address.sun_path, text.c_str(), text.size() + 1);
  Handle listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.is_open() || ::bind(listener.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), SOMAXCONN) != 0)
    refuse(path, std::strerror(errno));
  return listener;
}

char state_of_process(std::int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  auto const name_end = line.rfind(')');
  return name_end != std::string::npos && name_end + 2 < line.size() ? line[name_end + 2] : '?';
}

/// One process that called. Its connection may close before it ends.
struct Caller {
  Handle socket;
  std::int64_t pid = 0;
  Handle process;  ///< pidfd
  bool has_ended = false;
  net::FrameReader reader;
  std::string pending;
  std::optional<std::pair<std::string, MemberId>> member;
};

struct Accusation {
  Clock::time_point first;
  Clock::time_point last;
};

struct Job {
  protocol::FencingArbiter arbiter;
  std::set<MemberId> ended;
  std::map<MemberId, Accusation> accusations;
};

}  // namespace

struct SupervisorPort::Impl {
  Impl(std::filesystem::path const& socket, bool may_fence)
      : path(socket), fences(may_fence), listener(listen_at(socket)), epoll(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll.is_open()) refuse(socket, std::strerror(errno));
    watch(listener.get(), EPOLLIN);
  }
  ~Impl() { ::unlink(path.c_str()); }

  void watch(int fd, std::uint32_t wanted) const {
    epoll_event event{};
    event.events = wanted;
    event.data.fd = fd;
    ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  }

  void accept() {
    while (true) {
      Handle socket(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket.is_open()) return;
      ucred peer{};
      socklen_t bytes = sizeof peer;
      bool const is_known = ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0;
      if (!is_known || (peer.uid != ::geteuid() && peer.uid != 0) || callers.size() >= kMostConnections) continue;
      Caller caller;
      caller.pid = peer.pid;
      caller.process = Handle(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
      if (!caller.process.is_open()) continue;
      watch(socket.get(), EPOLLIN);
      watch(caller.process.get(), EPOLLIN);
      owners[caller.process.get()] = owners[socket.get()] = next_caller;
      caller.socket = std::move(socket);
      callers.emplace(next_caller++, std::move(caller));
    }
  }

  void read(std::uint64_t id) {
    auto& caller = callers.at(id);
    std::array<std::byte, 16'384> bytes;
    while (caller.socket.is_open()) {
      auto const count = ::read(caller.socket.get(), bytes.data(), bytes.size());
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (count <= 0) return hang_up(caller);
      caller.reader.append(std::span(bytes).first(static_cast<std::size_t>(count)));
      while (caller.socket.is_open()) {
        auto message = caller.reader.next();
        if (!message) {
          log_warning("closed a connection of process " + std::to_string(caller.pid) + ", which sent " +
                      message.error().detail);
          return hang_up(caller);
        }
        if (!*message) break;
        take(caller, **message);
      }
    }
  }

  void take(Caller& caller, protocol::Message const& message) {
    if (auto const* const hello = std::get_if<protocol::Hello>(&message)) {
      if (hello->protocol_version != protocol::kProtocolVersion || hello->from_rank < 0) return hang_up(caller);
      MemberId const member{static_cast<std::uint64_t>(hello->from_rank)};
      caller.member.emplace(hello->job_id, member);
      events.push_back({Change::reported, hello->job_id, member, caller.pid, {}, {}, {}});
      for (auto const ended : jobs[hello->job_id].ended) send(caller, protocol::Certificate{ended});
      return;
    }
    if (auto const* const reachable = std::get_if<protocol::Reachable>(&message); reachable && caller.member) {
      auto const& [job, member] = *caller.member;
      events.push_back({Change::reachable, job, member, caller.pid, {}, {}, reachable->join});
      return;
    }
    auto const* const request = std::get_if<protocol::FenceRequest>(&message);
    if (request == nullptr || !caller.member || request->requester != caller.member->second) return hang_up(caller);
    if (fences) judge(jobs[caller.member->first], caller.member->first, *request);
  }

  void judge(Job& job, std::string const& job_id, protocol::FenceRequest const& request) {
    auto const* const suspect = find(job_id, request.suspect);
    if (suspect == nullptr) return;  // not a process that we could end
    auto const now = Clock::now();
    if (job.accusations.size() >= kMostAccusations) job.accusations.clear();
    auto& accusation = job.accusations.try_emplace(request.suspect, Accusation{now, now}).first->second;
    if (now - accusation.last > kAccusationStands) accusation.first = now;
    accusation.last = now;
    bool const is_stopped = state_of_process(suspect->pid) == 'T';
    if (!is_stopped && now - accusation.first < kFencePatience)
      return job.arbiter.note_view(request.view, request.members);
    job.arbiter.request(request);
    auto const granted = job.arbiter.decide();
    if (!granted) return;
    auto const* const fenced = find(job_id, *granted);
    if (fenced == nullptr) return;
    ::syscall(SYS_pidfd_send_signal, fenced->process.get(), SIGKILL, nullptr, 0);
    events.push_back({Change::fenced, job_id, *granted, fenced->pid, request.requester, request.view,
                      is_stopped ? "its process is stopped"
                                 : "accused for " + text::seconds(now - accusation.first) + " although it could run"});
  }

  [[nodiscard]] Caller const* find(std::string const& job, MemberId member) const {
    for (auto const& [id, caller] : callers)
      if (!caller.has_ended && caller.member && caller.member->first == job && caller.member->second == member)
        return &caller;
    return nullptr;
  }

  void end(std::uint64_t id) {
    auto& caller = callers.at(id);
    // What it said before its end still counts.
    if (caller.socket.is_open()) read(id);
    caller.has_ended = true;
    if (caller.member) {
      auto const& [job, member] = *caller.member;
      if (!jobs[job].arbiter.on_ended(member).empty()) {
        events.push_back({Change::ended, job, member, caller.pid, {}, {}, {}});
        certify(job, member);
      }
    }
    owners.erase(caller.process.get());
    hang_up(caller);
    callers.erase(id);
  }

  void certify(std::string const& job, MemberId member) {
    if (!jobs[job].ended.insert(member).second) return;
    for (auto& [id, caller] : callers)
      if (!caller.has_ended && caller.member && caller.member->first == job)
        send(caller, protocol::Certificate{member});
  }

  void send(Caller& caller, protocol::Message const& message) {
    if (!caller.socket.is_open()) return;
    auto const bytes = net::encode(message);
    bool const was_empty = caller.pending.empty();
    caller.pending.append(reinterpret_cast<char const*>(bytes.data()), bytes.size());
    if (caller.pending.size() > kMostPending) return hang_up(caller);
    if (was_empty) write(caller);
  }

  void write(Caller& caller) {
    while (!caller.pending.empty()) {
      auto const count = ::send(caller.socket.get(), caller.pending.data(), caller.pending.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) break;
      if (count < 0) return hang_up(caller);
      caller.pending.erase(0, static_cast<std::size_t>(count));
    }
    epoll_event event{};
    event.events = EPOLLIN | (caller.pending.empty() ? 0U : static_cast<std::uint32_t>(EPOLLOUT));
    event.data.fd = caller.socket.get();
    ::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, caller.socket.get(), &event);
  }

  void hang_up(Caller& caller) {
    owners.erase(caller.socket.get());
    caller.socket = Handle();
    caller.pending.clear();
  }

  std::vector<Event> serve() {
    std::array<epoll_event, 64> ready;
    for (int count = 64; count == static_cast<int>(ready.size());) {
      count = ::epoll_wait(epoll.get(), ready.data(), static_cast<int>(ready.size()), 0);
      for (int at = 0; at < count; ++at) {
        int const fd = ready[static_cast<std::size_t>(at)].data.fd;
        if (fd == listener.get()) {
          accept();
          continue;
        }
        auto const owner = owners.find(fd);
        if (owner == owners.end()) continue;  // closed meanwhile
        auto const id = owner->second;
        auto& caller = callers.at(id);
        if (fd == caller.process.get()) {
          end(id);
          continue;
        }
        if ((ready[static_cast<std::size_t>(at)].events & EPOLLOUT) != 0U) write(caller);
        read(id);
      }
    }
    return std::exchange(events, {});
  }

  std::filesystem::path path;
  bool fences;
  Handle listener;
  Handle epoll;
  std::map<std::uint64_t, Caller> callers;
  std::map<int, std::uint64_t> owners;  ///< of descriptors
  std::uint64_t next_caller = 1;
  std::map<std::string, Job> jobs;
  std::vector<Event> events;
};

SupervisorPort::SupervisorPort(std::filesystem::path const& socket, bool fences)
    : impl_(std::make_unique<Impl>(socket, fences)) {}
SupervisorPort::~SupervisorPort() = default;

std::string SupervisorPort::address() const {
  return "unix://" + impl_->path.string();
}

int SupervisorPort::descriptor() const {
  return impl_->epoll.get();
}

std::vector<SupervisorPort::Event> SupervisorPort::serve() {
  return impl_->serve();
}

void SupervisorPort::certify(std::string const& job, MemberId member) {
  impl_->certify(job, member);
}

}  // namespace holdfast
