#include <memory>
#include <thread>

#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/write.hpp>
#include <gmock/gmock.h>
#include <group/group_state.hpp>
#include <gtest/gtest.h>
#include <net/mesh.hpp>
#include <net/wire.hpp>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;
using ::testing::HasSubstr;

/// A group of two whose ports are known, so that strangers can call.
class Strangers : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level("off");
    for (int rank = 0; rank < 2; ++rank) {
      meshes_.push_back(std::make_unique<net::Mesh>("127.0.0.1"));
      records_.push_back(net::describe_self({}, rank, 2));
      records_.back().address = "127.0.0.1";
      records_.back().port = meshes_.back()->port();
    }
  }

  static Config ending_config() {
    Config config;
    config.on_loss = "end";
    return config;
  }

  std::shared_ptr<GroupState> enter(int rank) {
    auto state = std::make_shared<GroupState>(ending_config(), net::first_value(records_),
                                              records_[static_cast<std::size_t>(rank)]);
    state->connect(std::move(meshes_[static_cast<std::size_t>(rank)]), Deadline::after(20s));
    return state;
  }

  tcp::socket call(int rank) {
    tcp::socket socket(io_);
    socket.connect({asio::ip::address_v4::loopback(), records_[static_cast<std::size_t>(rank)].port});
    return socket;
  }

  /// Waits until the other side hangs up or answers with Refused.
  static bool is_turned_away(tcp::socket& socket) {
    net::FrameReader reader;
    net::Bytes buffer(4096);
    std::error_code error;
    while (true) {
      auto const bytes = socket.read_some(asio::buffer(buffer), error);
      if (error) return true;
      reader.append(std::span(buffer).first(bytes));
      auto const message = reader.next();
      if (message && *message) return std::holds_alternative<protocol::Refused>(**message);
    }
  }

  asio::io_context io_;
  std::vector<std::unique_ptr<net::Mesh>> meshes_;
  std::vector<net::Record> records_;
};

TEST_F(Strangers, do_not_disturb_the_group) {
  std::shared_ptr<GroupState> first;
  auto before = call(0);  // While the group forms.
  std::jthread joiner([&] { first = enter(0); });
  asio::write(before, asio::buffer(std::string(10'000, 'x')));
  auto const second = enter(1);
  joiner.join();

  auto oversize = net::encode(protocol::Message(protocol::Welcome{}));
  oversize[4] = std::byte{0x7F};
  auto const token = records_[0].token;
  std::vector<net::Bytes> const rubbish{
      net::Bytes(100'000, std::byte{0xC1}),
      oversize,
      net::encode(protocol::Message(protocol::Heartbeat{})),
      net::encode(protocol::Message(protocol::Hello{protocol::kProtocolVersion, "", token + 1, 1, 0})),
      net::encode(protocol::Message(protocol::Hello{protocol::kProtocolVersion, "other job", token, 1, 0})),
      net::encode(protocol::Message(protocol::Hello{protocol::kProtocolVersion + 1, "", token, 1, 0})),
      net::encode(protocol::Message(
          protocol::Hello{protocol::kProtocolVersion, "", token, 1, 0})),  // Right, but the place is taken.
      net::encode(protocol::Message(protocol::Hello{protocol::kProtocolVersion, "", token, 77, 0})),
  };
  std::vector<tcp::socket> silent;
  for (int i = 0; i < 10; ++i) silent.push_back(call(0));
  for (auto const& bytes : rubbish) {
    auto socket = call(0);
    std::error_code ignored;
    asio::write(socket, asio::buffer(bytes), ignored);
    EXPECT_TRUE(is_turned_away(socket));
  }
  std::jthread const other([&] { EXPECT_TRUE(second->all_gather("after", {}, Deadline::after(20s))); });
  EXPECT_TRUE(first->all_gather("after", {}, Deadline::after(20s)));
  EXPECT_FALSE(first->read_membership([](auto const& membership) { return membership.failure(); }));
}

TEST_F(Strangers, member_that_sends_rubbish_is_named) {
  std::shared_ptr<GroupState> first;
  std::jthread joiner([&] { first = enter(0); });
  auto socket = call(0);
  asio::write(socket, asio::buffer(net::encode(protocol::Message(
                          protocol::Hello{protocol::kProtocolVersion, "", records_[0].token, 1, 0}))));
  joiner.join();
  asio::write(socket, asio::buffer(std::string(100, 'x')));
  auto const gathered = first->all_gather("key", {}, Deadline::after(20s));
  ASSERT_FALSE(gathered);
  EXPECT_EQ(gathered.error().code, Errc::corrupt_message);
  EXPECT_EQ(gathered.error().failed_members, std::vector{MemberId{1}});
}

TEST_F(Strangers, member_lost_during_the_start_ends_the_start_at_once) {
  records_.push_back(net::describe_self({}, 2, 3));  // Never comes.
  std::string message;
  std::jthread joiner([&] {
    try {
      (void)enter(0);
    } catch (Error const& error) {
      message = error.what();
    }
  });
  {
    auto socket = call(0);
    asio::write(socket, asio::buffer(net::encode(protocol::Message(
                            protocol::Hello{protocol::kProtocolVersion, "", records_[0].token, 1, 0}))));
    net::Bytes welcome(16);
    socket.read_some(asio::buffer(welcome));
  }
  auto const began = Deadline::Clock::now();
  joiner.join();
  EXPECT_LT(Deadline::Clock::now() - began, 10s);
  EXPECT_THAT(message, HasSubstr("rank 1"));
  EXPECT_THAT(message, HasSubstr("member_lost"));
}

TEST_F(Strangers, missing_member_is_named_when_nobody_connects) {
  auto state = std::make_shared<GroupState>(Config{}, net::first_value(records_), records_[0]);
  try {
    state->connect(std::move(meshes_[0]), Deadline::after(50ms));
    FAIL() << "connected to nobody";
  } catch (Error const& error) {
    EXPECT_EQ(error.errc(), Errc::start_failed);
    EXPECT_THAT(error.what(), HasSubstr("rank 1 could not be connected"));
  }
}

}  // namespace
}  // namespace holdfast
