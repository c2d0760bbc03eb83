#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/error.hpp>

#include "member_job.hpp"

/// A thousand views, each begun in the middle of an exchange, cost no more than a few: the same descriptors, mappings,
/// threads and memory. One member is stopped early on and stays so, so that what it had begun never ends. The same
/// program is the test and, as `growth member ...`, each of the members.
namespace holdfast::fault {
namespace {

using namespace std::chrono_literals;

constexpr int kMembers = 4;
constexpr int kVictim = 3;
constexpr std::uint64_t kFirstViews = 100;
constexpr std::size_t kElements = 100'003;

/// The view with which a run ends; HOLDFAST_TEST_VIEWS for a long one.
std::uint64_t last_view() {
  char const* const given = std::getenv("HOLDFAST_TEST_VIEWS");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : 300;
}

struct Usage {
  std::int64_t descriptors = 0;
  std::int64_t mappings = 0;
  std::int64_t threads = 0;
  std::int64_t resident_kib = 0;
};

Usage usage_of_this_process() {
  auto const entries = [](char const* folder) {
    auto const all = std::filesystem::directory_iterator(folder);
    return static_cast<std::int64_t>(std::distance(begin(all), end(all)));
  };
  Usage usage;
  usage.descriptors = entries("/proc/self/fd");
  usage.threads = entries("/proc/self/task");
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) ++usage.mappings;
  std::ifstream status("/proc/self/statm");
  std::int64_t all = 0;
  status >> all >> usage.resident_kib;
  usage.resident_kib *= ::sysconf(_SC_PAGESIZE) / 1024;
  return usage;
}

void show(Board::Seat& seat, std::size_t from, Usage const& usage) {
  std::size_t at = from;
  for (auto const number : {usage.descriptors, usage.mappings, usage.threads, usage.resident_kib})
    seat.numbers[at++].store(number);
}

Usage shown(Board::Seat const& seat, std::size_t from) {
  return {seat.numbers[from].load(), seat.numbers[from + 1].load(), seat.numbers[from + 2].load(),
          seat.numbers[from + 3].load()};
}

// ---------------------------------------------------------------------------------------------------- the member

Errc run_rounds(Board& board, Board::Seat& seat, std::string const& fabric) {
  auto group = Group::join(Config::from_environment());
  CommunicatorOptions options;
  options.fabric = fabric;
  Communicator communicator(group, options);
  auto bucket = communicator.allocate(kElements, DType::float32);
  auto* const own = reinterpret_cast<float*>(bucket.contribution().data());
  for (std::uint64_t number = 1;; ++number) {
    for (std::size_t element = 0; element < kElements; ++element) own[element] = static_cast<float>(number % 64);
    auto round = communicator.begin();
    auto const work = round.all_reduce(bucket, ReduceOp::sum);
    auto const view = static_cast<std::uint64_t>(group.view().id);
    if (group.rank() == 0 && view < last_view()) {
      // Somewhere in the exchange, a little later each time.
      static_cast<void>(work.wait(Deadline::after(std::chrono::microseconds(number * 37 % 1'500))));
      group.suspect(group.rank(), "the test wants another view");
    }
    auto const outcome = round.commit(Deadline::after(60s));
    if (!outcome) return outcome.error().code;
    auto const expected = static_cast<float>(number % 64 * outcome->contributors.size());
    auto const* const result = reinterpret_cast<float const*>(bucket.result().data());
    bool is_right = true;
    for (std::size_t element = 0; element < kElements; ++element) is_right = is_right && result[element] == expected;
    if (!is_right) seat.wrong.fetch_add(1);
    seat.world_size.store(outcome->contributors.size());
    if (seat.view.load() < kFirstViews && static_cast<std::uint64_t>(outcome->view) >= kFirstViews)
      show(seat, 0, usage_of_this_process());
    seat.view.store(static_cast<std::uint64_t>(outcome->view));
    seat.round.store(number);
    if (auto const last = board.stop_after.load(); last != 0 && number >= last) {
      show(seat, 4, usage_of_this_process());
      return Errc{};
    }
  }
}

int run_member(std::string const& fabric, std::string const& folder, std::string_view word) {
  auto& board = *MemberJob::map_board(folder, false);
  auto& seat = board.seats[MemberJob::seat_of(word)];
  seat.pid.store(::getpid());
  Errc reason = Errc::environment;
  try {
    reason = run_rounds(board, seat, fabric);
  } catch (Error const& error) {
    reason = error.errc();
  }
  seat.ended.store(1 + static_cast<int>(reason));
  return 0;
}

// ------------------------------------------------------------------------------------------------------ the test

class Growth : public ::testing::TestWithParam<std::string> {};

TEST_P(Growth, of_a_thousand_views_is_none) {
  MemberJob const job(GetParam(), kMembers,
                      {{"HOLDFAST_ON_LOSS", "shrink"},
                       {"HOLDFAST_QUORUM", "majority"},
                       {"HOLDFAST_HEARTBEAT_TIMEOUT_MS", "500"},
                       {"HOLDFAST_LOG_LEVEL", "warning"},
                       {"OMP_NUM_THREADS", "1"}},
                      HOLDFAST_TEST_MPIRUN);
  auto& board = job.board();
  auto const others = [&](auto const& is_so) {
    for (int rank = 0; rank < kMembers; ++rank)
      if (rank != kVictim && !is_so(job.seat(rank))) return false;
    return true;
  };
  ASSERT_TRUE(MemberJob::happens_within(60s, [&] { return job.seat(kVictim).view.load() >= 5; }));
  job.signal(kVictim, SIGSTOP);
  ASSERT_TRUE(MemberJob::happens_within(30s, [&] {
    return others([](auto const& seat) { return seat.world_size.load() == kMembers - 1; });
  })) << "the others did not go on without it";
  ASSERT_TRUE(MemberJob::happens_within(
      200s,
      [&] { return others([](auto const& seat) { return seat.view.load() >= last_view() || seat.ended.load() != 0; }); }))
      << "only " << job.seat(0).view.load() << " views";
  board.stop_after.store(job.seat(0).round.load() + 20);
  ASSERT_TRUE(
      MemberJob::happens_within(30s, [&] { return others([](auto const& seat) { return seat.ended.load() != 0; }); }));
  for (int rank = 0; rank < kMembers; ++rank) {
    auto const& seat = job.seat(rank);
    EXPECT_EQ(seat.wrong.load(), 0U) << "rank " << rank;
    if (rank == kVictim) continue;
    EXPECT_EQ(seat.ended.load(), 1) << "rank " << rank;
    auto const before = shown(seat, 0);
    auto const after = shown(seat, 4);
    std::printf(
        "rank %d, after %llu views and at the end: descriptors %lld %lld, mappings %lld %lld, threads %lld %lld, "
        "resident KiB %lld %lld\n",
        rank, static_cast<unsigned long long>(kFirstViews), static_cast<long long>(before.descriptors),
        static_cast<long long>(after.descriptors), static_cast<long long>(before.mappings),
        static_cast<long long>(after.mappings), static_cast<long long>(before.threads),
        static_cast<long long>(after.threads), static_cast<long long>(before.resident_kib),
        static_cast<long long>(after.resident_kib));
    // What is about at an instant differs by a view that is just being opened or closed.
    EXPECT_LE(after.descriptors, before.descriptors + 24) << "rank " << rank;
    EXPECT_LE(after.mappings, before.mappings + 48) << "rank " << rank;
    EXPECT_LE(after.threads, before.threads + 2) << "rank " << rank;
    EXPECT_LE(after.resident_kib, before.resident_kib + 16 * 1024) << "rank " << rank;
  }
}

std::vector<std::string> fabrics_here() {
  std::vector<std::string> all = {"shm", "tcp"};
  if (std::string_view(HOLDFAST_TEST_MPIRUN) != "") all.emplace_back("mpi");
  return all;
}

INSTANTIATE_TEST_SUITE_P(Fault, Growth, ::testing::ValuesIn(fabrics_here()),
                         [](auto const& test) { return test.param; });

}  // namespace
}  // namespace holdfast::fault

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "member") return holdfast::fault::run_member(argv[2], argv[3], argv[4]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
