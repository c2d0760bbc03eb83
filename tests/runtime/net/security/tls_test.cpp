#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/mesh.hpp>
#include <net/secure_stream.hpp>
#include <net/security/tls.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/log.hpp>

#include "certificates.hpp"

namespace holdfast::net::security {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

Config config_with(std::string const& secret) {
  Config config;
  config.tls = "on";
  config.job_secret = secret;
  config.start_timeout = 3s;
  return config;
}
constexpr char const* kSecret = "a secret of the right length";

class CertificatesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "holdfast-tls-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Config member(std::string const& name, holdfast::testing::Identity const& authority) {
    auto const identity = holdfast::testing::make_identity(name, &authority);
    Config config;
    config.tls = "on";
    config.tls_certificate = holdfast::testing::write_certificate(folder_ / (name + ".pem"), identity);
    config.tls_key = holdfast::testing::write_key(folder_ / (name + ".key"), identity);
    config.tls_ca = holdfast::testing::write_certificate(folder_ / (name + ".ca"), authority);
    config.start_timeout = 3s;
    return config;
  }
  std::filesystem::path folder_;
};

void expect_to_work(Config const& config) {
  auto groups = Group::in_threads(3, config);
  std::vector<std::jthread> members;
  for (auto& group : groups)
    members.emplace_back([&group] {
      // Several records and several reads.
      std::vector<std::byte> const own(700'000, static_cast<std::byte>(group.rank() + 1));
      for (int turn = 0; turn < 3; ++turn) {
        auto const all = group.all_gather("bytes", own, Deadline::after(20s));
        ASSERT_TRUE(all) << all.error().message();
        for (std::size_t rank = 0; rank < 3; ++rank) {
          ASSERT_EQ((*all)[rank].size(), own.size());
          EXPECT_EQ((*all)[rank].back(), static_cast<std::byte>(rank + 1));
        }
      }
    });
}

/// What the caller and the answerer of one connection say of each other; empty: nothing is wrong.
std::pair<std::string, std::string> meet(Config const& caller, Config const& answerer) {
  asio::io_context io;
  asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  asio::ip::tcp::socket socket(io);
  socket.connect(acceptor.local_endpoint());
  std::array<std::string, 2> said{"no answer", "no answer"};
  std::array<std::shared_ptr<SecureStream>, 2> streams{
      std::make_shared<SecureStream>(std::move(socket), credentials_of(caller), Role::caller, Purpose::control),
      std::make_shared<SecureStream>(acceptor.accept(), credentials_of(answerer), Role::answerer, Purpose::control)};
  for (std::size_t side = 0; side < 2; ++side)
    streams[side]->open(streams[side], [&, side](Outcome<void> const& proven) {
      said[side] = proven ? "" : proven.error().detail;
      if (!proven) streams[side]->close();
    });
  io.run_for(2s);
  return {said[0], said[1]};
}

TEST(Tls, by_the_job_secret_carries_a_group) {
  expect_to_work(config_with(kSecret));
}

TEST(Tls, refuses_who_has_another_secret_or_job_or_no_tls) {
  set_log_level("off");
  EXPECT_EQ(meet(config_with(kSecret), config_with(kSecret)), std::pair(std::string(), std::string()));
  auto another_job = config_with(kSecret);
  another_job.job_id = "another job";
  auto plain = config_with(kSecret);
  plain.tls = "off";
  for (auto const& other : {config_with("another secret of that length"), another_job, plain, Config{}}) {
    EXPECT_NE(meet(other, config_with(kSecret)).second, "");
    EXPECT_NE(meet(config_with(kSecret), other).first, "");
  }
  set_log_level("warning");
}

TEST_F(CertificatesTest, of_one_authority_carry_a_group) {
  auto const authority = holdfast::testing::make_identity("authority", nullptr);
  expect_to_work(member("member", authority));
  auto with_secret = member("another", authority);
  with_secret.job_secret = kSecret;
  expect_to_work(with_secret);
}

TEST_F(CertificatesTest, of_another_authority_are_refused) {
  auto const ours = holdfast::testing::make_identity("ours", nullptr);
  auto const theirs = holdfast::testing::make_identity("theirs", nullptr);
  auto const member_of_ours = member("a", ours);
  auto stranger = member("b", theirs);
  EXPECT_EQ(meet(member_of_ours, member("c", ours)), std::pair(std::string(), std::string()));
  stranger.tls_ca = member_of_ours.tls_ca;  // believes us, but has nothing that we believe
  EXPECT_NE(meet(stranger, member_of_ours).second, "");
  EXPECT_NE(meet(member_of_ours, stranger).first, "");
  EXPECT_NE(meet(config_with(kSecret), member_of_ours).second, "");
}

TEST_F(CertificatesTest, that_cannot_be_read_are_named) {
  auto const authority = holdfast::testing::make_identity("authority", nullptr);
  auto config = member("member", authority);
  config.tls_key = config.tls_certificate;
  try {
    (void)credentials_of(config);
    FAIL() << "a certificate was taken for a key";
  } catch (Error const& error) {
    EXPECT_THAT(error.what(), HasSubstr("tls_key"));
    EXPECT_THAT(error.what(), HasSubstr(config.tls_key));
  }
}

TEST(Tls, needs_a_key_in_the_configuration) {
  Config config;
  config.tls = "on";
  EXPECT_THROW(config.validate(), Error);
  config.tls_ca = "ca.pem";
  config.job_secret = kSecret;
  EXPECT_THROW(config.validate(), Error);
}

/// Two sessions and whoever sits between them.
class Wiretap {
 public:
  Wiretap() {
    for (auto& side : sides_) {
      int sockets[2];
      EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets), 0);
      side = {sockets[0], sockets[1]};
    }
    auto const context = TlsContext::with_shared_key(derive_key(kSecret, "tls"));
    caller = std::make_unique<TlsSession>(context, Role::caller, sides_[0].first);
    answerer = std::make_unique<TlsSession>(context, Role::answerer, sides_[1].first);
    bool is_done = false;
    for (int turn = 0; turn < 10 && !is_done; ++turn) {
      auto const first = caller->advance();
      relay();
      auto const second = answerer->advance();
      relay();
      is_done = first && second && *first == TlsSession::Wait::nothing && *second == TlsSession::Wait::nothing;
    }
    EXPECT_TRUE(is_done);
  }
  ~Wiretap() {
    caller.reset();
    answerer.reset();
    for (auto const& [inner, outer] : sides_) {
      ::close(inner);
      ::close(outer);
    }
  }
  Wiretap(Wiretap const&) = delete;
  Wiretap& operator=(Wiretap const&) = delete;

  void relay() {
    for (int from : {0, 1}) {
      std::array<char, 65'536> buffer;
      auto const bytes = ::read(sides_[static_cast<std::size_t>(from)].second, buffer.data(), buffer.size());
      if (bytes <= 0) continue;
      seen.append(buffer.data(), static_cast<std::size_t>(bytes));
      if (is_tampering) buffer[static_cast<std::size_t>(bytes) - 1] ^= 1;
      EXPECT_EQ(
          ::write(sides_[static_cast<std::size_t>(1 - from)].second, buffer.data(), static_cast<std::size_t>(bytes)),
          bytes);
    }
  }

  std::unique_ptr<TlsSession> caller;
  std::unique_ptr<TlsSession> answerer;
  std::string seen;
  bool is_tampering = false;

 private:
  std::array<std::pair<int, int>, 2> sides_;
};

std::string const kMessage = "what nobody else shall read, " + std::string(200, '=');

TEST(Tls, shows_nothing_to_who_listens_and_names_the_connection_alike_at_both_ends) {
  Wiretap wire;
  EXPECT_EQ(wire.caller->binding(), wire.answerer->binding());
  EXPECT_NE(wire.caller->binding(), Wiretap().caller->binding());
  std::error_code error;
  EXPECT_EQ(wire.caller->write_some(std::as_bytes(std::span(kMessage)), error), kMessage.size());
  wire.relay();
  std::string read(kMessage.size(), ' ');
  EXPECT_EQ(wire.answerer->read_some(std::as_writable_bytes(std::span(read)), error), kMessage.size());
  EXPECT_EQ(read, kMessage);
  EXPECT_EQ(wire.seen.find("nobody else"), std::string::npos);
  EXPECT_EQ(wire.answerer->read_some(std::as_writable_bytes(std::span(read)), error), 0U);
  EXPECT_EQ(error, asio::error::would_block);
}

TEST(Tls, takes_nothing_that_was_changed_on_the_way) {
  Wiretap wire;
  wire.is_tampering = true;
  std::error_code error;
  EXPECT_EQ(wire.caller->write_some(std::as_bytes(std::span(kMessage)), error), kMessage.size());
  wire.relay();
  std::string read(kMessage.size(), ' ');
  EXPECT_EQ(wire.answerer->read_some(std::as_writable_bytes(std::span(read)), error), 0U);
  EXPECT_TRUE(error);
  EXPECT_NE(error, asio::error::would_block);
}

}  // namespace
}  // namespace holdfast::net::security
