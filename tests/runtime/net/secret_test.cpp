#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>
#include <gmock/gmock.h>
#include <group/group_state.hpp>
#include <gtest/gtest.h>
#include <net/mesh.hpp>
#include <net/rendezvous.hpp>
#include <net/security/credentials.hpp>
#include <net/wire.hpp>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char const* kSecret = "a secret of the right length";

Config config_with(std::string secret, std::string job = "") {
  Config config;
  config.job_secret = std::move(secret);
  config.job_id = std::move(job);
  return config;
}

/// Everything that comes until the other side hangs up.
net::Bytes read_all(tcp::socket& socket) {
  net::Bytes all;
  net::Bytes buffer(4096);
  std::error_code error;
  while (!error) {
    auto const bytes = socket.read_some(asio::buffer(buffer), error);
    all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(bytes));
  }
  return all;
}

TEST(Secret, lets_a_group_with_one_secret_work) {
  auto groups = Group::in_threads(3, config_with(kSecret));
  std::vector<std::jthread> members;
  for (auto& group : groups)
    members.emplace_back([&group] {
      std::byte const own{static_cast<unsigned char>(group.rank())};
      auto const all = group.all_gather("ranks", {&own, 1}, Deadline::after(20s));
      ASSERT_TRUE(all) << all.error().message();
      for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ((*all)[rank].at(0), static_cast<std::byte>(rank));
    });
}

TEST(Secret, gives_strangers_nothing_and_lets_them_change_nothing) {
  set_log_level("off");
  std::vector<std::unique_ptr<net::Mesh>> meshes;
  std::vector<net::Record> records;
  auto const config = config_with(kSecret);
  for (int rank = 0; rank < 2; ++rank) {
    meshes.push_back(std::make_unique<net::Mesh>("127.0.0.1", net::security::credentials_of(config)));
    records.push_back(net::describe_self(config, rank, 2));
    records.back().address = "127.0.0.1";
    records.back().port = meshes.back()->port();
  }
  auto const enter = [&](std::size_t rank) {
    auto state = std::make_shared<GroupState>(config, net::first_value(records), records[rank]);
    state->connect(std::move(meshes[rank]), Deadline::after(20s));
    return state;
  };
  asio::io_context io;
  auto const call = [&] {
    tcp::socket socket(io);
    socket.connect({asio::ip::address_v4::loopback(), records[0].port});
    return socket;
  };
  std::shared_ptr<GroupState> first;
  std::jthread joiner([&] { first = enter(0); });
  // Knows the token and everything else that is not secret, and comes before the member does.
  net::Bytes const hello =
      net::encode(protocol::Message(protocol::Hello{protocol::kProtocolVersion, "", records[0].token, 1, 0}));
  {
    auto stranger = call();
    asio::write(stranger, asio::buffer(hello));
    EXPECT_TRUE(read_all(stranger).empty());
  }
  auto const second = enter(1);
  joiner.join();

  net::security::Handshake guess(net::security::Role::caller, net::security::Purpose::control,
                                 net::security::derive_key("a guess at the secret", "authentication"),
                                 net::security::sha256(""), {}, net::security::random_nonce());
  auto stranger = call();
  auto words = guess.take_output();
  words.resize(words.size() + 32);  // and 32 bytes for a proof
  asio::write(stranger, asio::buffer(words));
  EXPECT_LE(read_all(stranger).size(), 37U) << "more than a nonce";

  std::jthread const other([&] { EXPECT_TRUE(second->all_gather("after", {}, Deadline::after(20s))); });
  EXPECT_TRUE(first->all_gather("after", {}, Deadline::after(20s)));
  set_log_level("warning");
}

net::Record record_of(int rank, Config const& config) {
  return net::describe_self(config, rank, 2);
}

std::string meet(std::string const& port, int rank, Config const& config, std::chrono::milliseconds limit) {
  try {
    (void)net::meet_by_tcp("127.0.0.1", port, record_of(rank, config), net::security::credentials_of(config),
                           Deadline::after(limit));
  } catch (Error const& error) {
    return error.what();
  }
  return "";
}

std::string free_port() {
  asio::io_context io;
  tcp::acceptor const acceptor(io, {asio::ip::address_v4::loopback(), 0});
  return std::to_string(acceptor.local_endpoint().port());
}

TEST(Secret, is_asked_for_at_the_rendezvous) {
  set_log_level("off");
  auto const port = free_port();
  std::string host_says;
  {
    std::jthread const host([&] { host_says = meet(port, 0, config_with(kSecret), 1500ms); });
    EXPECT_THAT(meet(port, 1, config_with("another secret of that length"), 700ms), HasSubstr("job_secret"));
    EXPECT_THAT(meet(port, 1, config_with(""), 500ms), HasSubstr("rank 0"));
    // One secret for two jobs on one port: told apart all the same.
    EXPECT_THAT(meet(port, 1, config_with(kSecret, "another job"), 500ms), HasSubstr("rank 0"));
  }
  EXPECT_THAT(host_says, HasSubstr("rank 1 of 2 did not call"));

  auto const second_port = free_port();
  std::jthread const host([&] { EXPECT_EQ(meet(second_port, 0, config_with(kSecret), 20s), ""); });
  EXPECT_EQ(meet(second_port, 1, config_with(kSecret), 20s), "");
  set_log_level("warning");
}

TEST(Secret, is_read_from_its_file_and_never_printed) {
  auto const path = std::filesystem::temp_directory_path() / ("holdfast-secret-" + std::to_string(::getpid()));
  std::ofstream(path) << kSecret << "\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  Config config;
  config.job_secret_file = path;
  EXPECT_EQ(net::security::with_secret_read(config).job_secret, kSecret);
  EXPECT_EQ(net::security::credentials_of(config).authentication_key,
            net::security::credentials_of(config_with(kSecret)).authentication_key);
  EXPECT_THAT(net::security::with_secret_read(config).print(), Not(HasSubstr(kSecret)));

  std::ofstream(path) << "short";
  EXPECT_THROW((void)net::security::with_secret_read(config), Error);
  std::filesystem::remove(path);
  EXPECT_THROW((void)net::security::with_secret_read(config), Error);
}

}  // namespace
}  // namespace holdfast
