#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/wire.hpp>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>
#include <holdfast/runtime/supervisor_port.hpp>

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using Change = SupervisorPort::Change;
using ::testing::HasSubstr;

protocol::Hello hello(std::int32_t member) {
  return {protocol::kProtocolVersion, "job", 0, member, 0};
}

/// One end of a member's connection, spoken to byte by byte.
class Caller {
 public:
  explicit Caller(std::string const& address) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, address.substr(std::strlen("unix://")).c_str(), sizeof name.sun_path - 1);
    is_connected_ = ::connect(socket_, reinterpret_cast<sockaddr const*>(&name), sizeof name) == 0;
    ::fcntl(socket_, F_SETFL, O_NONBLOCK);
  }
  Caller(Caller const&) = delete;
  Caller& operator=(Caller const&) = delete;
  ~Caller() { ::close(socket_); }

  void say(protocol::Message const& message) const { write(net::encode(message)); }
  void write(net::Bytes const& bytes) const { (void)::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  [[nodiscard]] bool is_connected() const { return is_connected_; }
  /// Whether the port has hung up.
  [[nodiscard]] bool is_closed() const {
    char byte = 0;
    return ::recv(socket_, &byte, 1, MSG_PEEK) == 0;
  }
  std::optional<MemberId> certificate() {
    std::array<std::byte, 256> bytes;
    auto const count = ::read(socket_, bytes.data(), bytes.size());
    if (count > 0) reader_.append(std::span(bytes).first(static_cast<std::size_t>(count)));
    auto message = reader_.next();
    if (!message || !*message || !std::holds_alternative<protocol::Certificate>(**message)) return std::nullopt;
    return std::get<protocol::Certificate>(**message).member;
  }

 private:
  int socket_;
  bool is_connected_ = false;
  net::FrameReader reader_;
};

class Port : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level("off");
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-port-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    port_ = std::make_unique<SupervisorPort>(folder_ / "socket", true);
  }
  void TearDown() override {
    for (auto const pid : children_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }

  /// A process that says it is `member`, then sleeps.
  pid_t start(std::int32_t member) {
    auto const pid = ::fork();
    if (pid == 0) {
      Caller const caller(port_->address());
      caller.say(hello(member));
      while (true) ::pause();
    }
    children_.push_back(pid);
    EXPECT_TRUE(happens([&](auto const& event) { return event.change == Change::reported && event.pid == pid; }));
    return pid;
  }

  template <typename Condition>
  bool happens(Condition const& is_it, std::chrono::milliseconds limit = 20s) {
    auto const until = std::chrono::steady_clock::now() + limit;
    do {
      for (auto const& event : port_->serve())
        if (is_it(event)) {
          last_ = event;
          return true;
        }
      std::this_thread::sleep_for(1ms);
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }

  static protocol::FenceRequest accuse(std::uint64_t by, std::uint64_t whom) {
    return {ViewId{1}, {MemberId{0}, MemberId{1}, MemberId{2}}, MemberId{by}, MemberId{whom}};
  }

  std::filesystem::path folder_;
  std::unique_ptr<SupervisorPort> port_;
  std::vector<pid_t> children_;
  SupervisorPort::Event last_;
};

TEST_F(Port, tells_members_which_processes_have_ended_those_that_come_later_too) {
  Caller one(port_->address());
  one.say(hello(1));
  auto const pid = start(0);
  ::kill(pid, SIGKILL);
  ASSERT_TRUE(happens([](auto const& event) { return event.change == Change::ended; }));
  EXPECT_EQ(last_.member, MemberId{0});
  EXPECT_EQ(last_.pid, pid);
  EXPECT_EQ(one.certificate(), MemberId{0});
  Caller other(port_->address());
  other.say(hello(2));
  ASSERT_TRUE(happens([](auto const& event) { return event.change == Change::reported; }));
  EXPECT_EQ(other.certificate(), MemberId{0});
}

TEST_F(Port, ends_a_stopped_process_that_is_accused_and_certifies_only_its_end) {
  Caller one(port_->address());
  one.say(hello(1));
  auto const pid = start(0);
  ::kill(pid, SIGSTOP);
  ::waitpid(pid, nullptr, WUNTRACED);
  one.say(accuse(1, 0));
  ASSERT_TRUE(happens([](auto const& event) { return event.change == Change::fenced; }));
  EXPECT_EQ(last_.accuser, MemberId{1});
  EXPECT_THAT(last_.detail, HasSubstr("stopped"));
  ASSERT_TRUE(happens([](auto const& event) { return event.change == Change::ended; }));
  EXPECT_EQ(one.certificate(), MemberId{0});
}

TEST_F(Port, gives_a_process_that_could_run_the_benefit_of_the_doubt) {
  Caller one(port_->address());
  one.say(hello(1));
  start(0);
  auto const began = std::chrono::steady_clock::now();
  auto const accuses_until = [&](std::chrono::milliseconds limit) {
    auto const until = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < until) {
      one.say(accuse(1, 0));
      if (happens([](auto const& event) { return event.change == Change::fenced; }, 20ms)) return true;
    }
    return false;
  };
  EXPECT_FALSE(accuses_until(SupervisorPort::kFencePatience / 2));
  std::this_thread::sleep_for(700ms);  // withdrawn: patience begins again
  EXPECT_FALSE(accuses_until(SupervisorPort::kFencePatience * 3 / 4));
  EXPECT_TRUE(accuses_until(10s));
  EXPECT_GE(std::chrono::steady_clock::now() - began, SupervisorPort::kFencePatience + 700ms);
  EXPECT_THAT(last_.detail, HasSubstr("although it could run"));
}

TEST_F(Port, never_ends_the_last_member_nor_heeds_one_that_was_fenced) {
  Caller zero(port_->address());
  zero.say(hello(0));
  auto const pid = start(1);
  ::kill(pid, SIGSTOP);
  ::waitpid(pid, nullptr, WUNTRACED);
  protocol::FenceRequest const last{ViewId{2}, {MemberId{1}}, MemberId{0}, MemberId{1}};
  for (int turn = 0; turn < 20; ++turn) zero.say(last);
  EXPECT_FALSE(happens([](auto const& event) { return event.change == Change::fenced; }, 100ms));
}

TEST_F(Port, closes_a_connection_that_brings_rubbish_or_speaks_for_another_and_no_other) {
  Caller good(port_->address());
  good.say(hello(1));
  Caller rubbish(port_->address());
  rubbish.write(net::Bytes(1000, std::byte{0xC1}));
  Caller liar(port_->address());
  liar.say(hello(2));
  liar.say(accuse(1, 0));
  Caller unnamed(port_->address());
  unnamed.say(accuse(1, 0));
  (void)happens([](auto const&) { return false; }, 100ms);
  EXPECT_TRUE(rubbish.is_closed());
  EXPECT_TRUE(liar.is_closed());
  EXPECT_TRUE(unnamed.is_closed());
  EXPECT_FALSE(good.is_closed());
  auto const pid = start(0);
  ::kill(pid, SIGKILL);
  ASSERT_TRUE(happens([](auto const& event) { return event.change == Change::ended; }));
  EXPECT_EQ(good.certificate(), MemberId{0});
}

TEST_F(Port, refuses_a_path_that_is_too_long_with_the_remedy) {
  try {
    SupervisorPort const port(folder_ / std::string(120, 'x'), true);
    FAIL() << "it was taken";
  } catch (Error const& error) {
    EXPECT_THAT(error.what(), HasSubstr("TMPDIR"));
  }
}

}  // namespace
}  // namespace holdfast
