#include <chrono>
#include <csignal>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/error.hpp>

#include "member_job.hpp"

/// A member is stopped in the middle of writing its shard of the result, evicted, and resumed: what it still writes is
/// never seen. The same program is the test and, as `late_writer member ...`, each of the members.
namespace holdfast::fault {
namespace {

using namespace std::chrono_literals;

constexpr int kMembers = 4;
constexpr int kVictim = 1;
constexpr std::uint64_t kStruckRound = 6;
constexpr std::uint64_t kLaterRounds = 1'000;
constexpr std::size_t kElements = 64 << 10;

// ---------------------------------------------------------------------------------------------------- the member

Board* the_board = nullptr;
std::byte* the_trap = nullptr;
std::size_t the_page = 0;

/// The owner of a shard reads its own row while it writes to all the others: a page of that row which cannot be read
/// stops it exactly there, half of its shard written. Once resumed, the read is done again and the writing goes on.
void stop_here(int, siginfo_t* info, void*) {
  auto* const at = static_cast<std::byte*>(info->si_addr);
  if (the_trap == nullptr || at < the_trap || at >= the_trap + the_page) ::abort();
  ::mprotect(the_trap, the_page, PROT_READ | PROT_WRITE);
  the_trap = nullptr;
  the_board->is_struck.store(1);
  ::kill(::getpid(), SIGSTOP);
}

void set_trap(Bucket const& bucket, int rank) {
  the_page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = &stop_here;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &action, nullptr);
  auto const middle = bucket.contribution().bytes() * (2 * static_cast<std::size_t>(rank) + 1) / (2 * kMembers);
  the_trap = bucket.contribution().data() + middle / the_page * the_page;
  ::mprotect(the_trap, the_page, PROT_NONE);
}

float value(std::uint64_t member, std::uint64_t round, std::size_t element) {
  return static_cast<float>((member * 41 + round * 17 + element * 3) & 1023);
}

Errc run_rounds(Board& board, Board::Seat& shown, std::size_t seat, std::string const& fabric) {
  auto group = Group::join(Config::from_environment());
  CommunicatorOptions options;
  options.fabric = fabric;
  Communicator communicator(group, options);
  auto bucket = communicator.allocate(kElements, DType::float32);
  auto* const own = reinterpret_cast<float*>(bucket.contribution().data());
  for (std::uint64_t number = 1;; ++number) {
    for (std::size_t element = 0; element < kElements; ++element)
      own[element] = value(static_cast<std::uint64_t>(group.self()), number, element);
    if (seat == kVictim && number == kStruckRound) set_trap(bucket, communicator.rank());
    auto round = communicator.begin();
    round.all_reduce(bucket, ReduceOp::sum);
    auto const outcome = round.commit(Deadline::after(60s));
    if (!outcome) return outcome.error().code;
    auto const view = group.view();
    std::vector<std::uint64_t> members;
    for (auto const& member : view.members) members.push_back(static_cast<std::uint64_t>(member.id));
    auto const* const result = reinterpret_cast<float const*>(bucket.result().data());
    bool is_right = view.id == outcome->view;
    for (std::size_t element = 0; element < kElements; ++element) {
      float sum = 0;
      for (auto const member : members) sum += value(member, number, element);
      is_right = is_right && result[element] == sum;
    }
    if (!is_right) shown.wrong.fetch_add(1);
    shown.view.store(static_cast<std::uint64_t>(outcome->view));
    shown.round.store(number);
    if (auto const last = board.stop_after.load(); last != 0 && number >= last) return Errc{};
  }
}

int run_member(std::string const& fabric, std::string const& folder, std::string_view word) {
  the_board = MemberJob::map_board(folder, false);
  auto const seat = MemberJob::seat_of(word);
  auto& shown = the_board->seats[seat];
  shown.pid.store(::getpid());
  Errc reason = Errc::environment;
  try {
    reason = run_rounds(*the_board, shown, seat, fabric);
  } catch (Error const& error) {
    reason = error.errc();
  }
  shown.ended.store(1 + static_cast<int>(reason));
  return 0;
}

// ------------------------------------------------------------------------------------------------------ the test

class LateWriter : public ::testing::TestWithParam<std::string> {};

TEST_P(LateWriter, that_was_stopped_in_a_copy_and_evicted_spoils_no_byte_of_a_thousand_rounds) {
  MemberJob const job(GetParam(), kMembers,
                      {{"HOLDFAST_ON_LOSS", "shrink"},
                       {"HOLDFAST_QUORUM", "majority"},
                       {"HOLDFAST_HEARTBEAT_TIMEOUT_MS", "500"},
                       {"HOLDFAST_ARENA_BYTES", "67108864"},
                       {"OMP_NUM_THREADS", "1"}},
                      HOLDFAST_TEST_MPIRUN);
  auto& board = job.board();
  auto const survivors_all = [&](auto const& is_so) {
    for (int rank = 0; rank < kMembers; ++rank)
      if (rank != kVictim && !is_so(job.seat(rank))) return false;
    return true;
  };
  ASSERT_TRUE(MemberJob::happens_within(60s, [&] { return board.is_struck.load() == 1; })) << "nobody was stopped";
  auto const view = job.seat(0).view.load();
  ASSERT_TRUE(MemberJob::happens_within(30s, [&] {
    return survivors_all([&](auto const& seat) { return seat.view.load() > view && seat.round.load() >= 10; });
  })) << "the others did not go on without it";
  EXPECT_EQ(job.seat(kVictim).round.load(), kStruckRound - 1);

  job.signal(kVictim, SIGCONT);
  std::uint64_t resumed_at = 0;
  for (auto const& seat : board.seats) resumed_at = std::max(resumed_at, seat.round.load());
  board.stop_after.store(resumed_at + kLaterRounds);
  EXPECT_TRUE(MemberJob::happens_within(
      120s, [&] { return survivors_all([&](auto const& seat) { return seat.ended.load() != 0; }); }))
      << "the others stopped at round " << job.seat(0).round.load();
  for (int rank = 0; rank < kMembers; ++rank) {
    EXPECT_EQ(job.seat(rank).wrong.load(), 0U) << "rank " << rank;
    if (rank == kVictim) continue;
    EXPECT_EQ(job.seat(rank).ended.load(), 1) << "rank " << rank;
    EXPECT_EQ(job.seat(rank).round.load(), resumed_at + kLaterRounds) << "rank " << rank;
  }
  EXPECT_TRUE(MemberJob::happens_within(20s, [&] { return job.seat(kVictim).ended.load() != 0; }));
  EXPECT_EQ(job.seat(kVictim).ended.load(), 1 + static_cast<int>(Errc::evicted));
}

std::vector<std::string> fabrics_here() {
  std::vector<std::string> all = {"shm", "tcp"};
  if (std::string_view(HOLDFAST_TEST_MPIRUN) != "") all.emplace_back("mpi");
  return all;
}

INSTANTIATE_TEST_SUITE_P(Fault, LateWriter, ::testing::ValuesIn(fabrics_here()),
                         [](auto const& test) { return test.param; });

}  // namespace
}  // namespace holdfast::fault

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "member") return holdfast::fault::run_member(argv[2], argv[3], argv[4]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
