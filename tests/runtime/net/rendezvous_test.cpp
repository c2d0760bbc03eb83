#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/rendezvous.hpp>
#include <unistd.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::net {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

Record record_of(int rank, int world_size, std::string const& job_id = "") {
  Config config;
  config.job_id = job_id;
  return describe_self(config, rank, world_size);
}

class FileRendezvousTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-meet-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string refusal(FileRendezvous const& rendezvous) const {
    try {
      (void)rendezvous.wait_for_all(Deadline::after(50ms));
    } catch (Error const& error) {
      return error.what();
    }
    return "nothing was refused";
  }
  std::filesystem::path directory_;
};

TEST_F(FileRendezvousTest, brings_all_together_and_cleans_up) {
  FileRendezvous const a(directory_ / "deeper", record_of(0, 2));
  FileRendezvous const b(directory_ / "deeper", record_of(1, 2));
  std::vector<Record> records;
  {
    std::jthread const other([&] { records = a.wait_for_all(Deadline::after(10s)); });
    EXPECT_EQ(b.wait_for_all(Deadline::after(10s)).size(), 2U);
  }
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[1].rank, 1);
  a.clean_up();
  b.clean_up();
  EXPECT_TRUE(std::filesystem::is_empty(directory_ / "deeper"));
}

TEST_F(FileRendezvousTest, leaves_the_record_of_a_member_that_replaced_it) {
  FileRendezvous const older(directory_, record_of(0, 2));
  FileRendezvous const newer(directory_, record_of(0, 2));
  older.clean_up();
  EXPECT_FALSE(std::filesystem::is_empty(directory_));
}

TEST_F(FileRendezvousTest, names_who_did_not_show_up) {
  FileRendezvous const alone(directory_, record_of(1, 4));
  EXPECT_THAT(refusal(alone), HasSubstr("ranks 0, 2 and 3 of 4 did not show up"));
}

TEST_F(FileRendezvousTest, lets_nobody_go_on_before_all_have_read) {
  FileRendezvous const slow(directory_, record_of(0, 2));
  FileRendezvous const mine(directory_, record_of(1, 2));
  EXPECT_THAT(refusal(mine), HasSubstr("rank 0 of 2 did not show up"));
}

TEST_F(FileRendezvousTest, ignores_records_of_another_job) {
  FileRendezvous const other(directory_, record_of(0, 2, "yesterday"));
  FileRendezvous const mine(directory_, record_of(1, 2, "today"));
  EXPECT_THAT(refusal(mine), HasSubstr("rank 0 of 2 did not show up"));
}

TEST_F(FileRendezvousTest, ignores_records_of_processes_that_ended) {
  auto dead = record_of(0, 2);
  dead.process_start += 1;
  FileRendezvous const left_behind(directory_, dead);
  FileRendezvous const mine(directory_, record_of(1, 2));
  EXPECT_THAT(refusal(mine), HasSubstr("rank 0 of 2 did not show up"));
}

TEST_F(FileRendezvousTest, refuses_a_directory_that_cannot_be_made) {
  EXPECT_THROW(FileRendezvous("/proc/no/such", record_of(0, 2)), Error);
}

std::string free_port() {
  asio::io_context io;
  asio::ip::tcp::acceptor const acceptor(io, {asio::ip::address_v4::loopback(), 0});
  return std::to_string(acceptor.local_endpoint().port());
}

TEST(TcpRendezvous, brings_all_together_in_any_order) {
  auto const port = free_port();
  std::vector<std::vector<Record>> seen(3);
  {
    std::vector<std::jthread> members;
    for (int const rank : {2, 1, 0}) {
      members.emplace_back([&, rank] {
        seen[static_cast<std::size_t>(rank)] =
            meet_by_tcp("127.0.0.1", port, record_of(rank, 3), {}, Deadline::after(20s));
      });
      if (rank == 1) std::this_thread::sleep_for(80ms);  // The first calls find nobody and are repeated.
    }
  }
  for (auto const& records : seen) {
    ASSERT_EQ(records.size(), 3U);
    for (std::size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(records[rank].token, seen[0][rank].token);
  }
}

std::string refusal_of(std::string const& port, Record const& record, std::chrono::milliseconds limit) {
  try {
    (void)meet_by_tcp("127.0.0.1", port, record, {}, Deadline::after(limit));
  } catch (Error const& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(TcpRendezvous, names_who_did_not_call) {
  EXPECT_THAT(refusal_of(free_port(), record_of(0, 3), 50ms), HasSubstr("ranks 1 and 2 of 3"));
  EXPECT_THAT(refusal_of(free_port(), record_of(1, 3), 50ms), HasSubstr("cannot be reached"));
}

TEST(TcpRendezvous, refuses_another_job_and_a_rank_twice) {
  auto const port = free_port();
  std::jthread const host([&] { (void)refusal_of(port, record_of(0, 3, "a"), 1500ms); });
  EXPECT_THAT(refusal_of(port, record_of(1, 3, "b"), 1s), HasSubstr("this is job \"a\", not \"b\""));
  EXPECT_THAT(refusal_of(port, record_of(0, 3, "a"), 1s), HasSubstr("cannot listen"));
  EXPECT_THAT(refusal_of(port, record_of(1, 2, "a"), 1s), HasSubstr("HOLDFAST_WORLD_SIZE"));
}

}  // namespace
}  // namespace holdfast::net
