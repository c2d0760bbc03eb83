#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/state_sharing.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

#include "commands.hpp"
#include "fault_board.hpp"
#include "job_policy.hpp"

namespace holdfast::launch {
namespace {

constexpr std::size_t kStateStride = 64;

/// What a member puts into a round: the same at each element, so that the mean of any set of members is known.
float contribution(MemberId member, std::uint64_t round) {
  return static_cast<float>(static_cast<std::uint64_t>(member) + 1) + static_cast<float>(round % 1024);
}

bool is_mean_of(Reduction const& reduction, View const& view, MutableBuffer result) {
  double sum = 0;
  for (int const rank : reduction.contributors)
    sum += contribution(view.members[static_cast<std::size_t>(rank)].id, reduction.round.number);
  auto const expected = sum / static_cast<double>(reduction.contributors.size());
  auto const* const values = reinterpret_cast<float const*>(result.data());
  // Ends and middle: every shard boundary of a few members lies between.
  for (std::size_t const index : {std::size_t{0}, result.elements() / 3, result.elements() / 2, result.elements() - 1})
    if (std::abs(values[index] - expected) > 1e-4 * expected) return false;
  return true;
}

int train(FaultBoard& board, std::size_t seat, FaultPlan const& plan) {
  auto& shown = board.members[seat];
  auto group = Group::join(Config::from_environment());
  Communicator communicator(group, {plan.fabric, 0, {}});
  auto bucket = communicator.allocate(plan.bytes / sizeof(float), DType::float32);
  auto* const values = reinterpret_cast<float*>(bucket.contribution().data());
  std::vector<float> state(plan.state_bytes / sizeof(float));
  StateRegistry registry;
  std::optional<StateSharing> sharing;
  // A part of the state changes by each result, as a model would: what a newcomer replays must be right.
  auto const apply = [&](MutableBuffer result) {
    auto const* const taken = reinterpret_cast<float const*>(result.data());
    for (std::size_t i = 0; i < std::min(state.size(), result.elements()); i += kStateStride) state[i] += taken[i];
  };
  if (plan.state_bytes > 0) {
    registry.add("state", Sharing::replicated, std::as_writable_bytes(std::span(state)), {"F32", {state.size()}});
    sharing.emplace(communicator, registry);
  }
  if (group.is_newcomer()) {
    auto const replay = [&](ReplayedRound const& round) -> Outcome<void> {
      if (round.has_results) apply(round.results.at(0));
      shown.last_round.store(round.round.number);
      return {};
    };
    if (auto joined = sharing->join(replay, Deadline::after(std::chrono::seconds(60))); !joined) {
      std::fprintf(stderr, "%s\n", joined.error().message().c_str());
      return static_cast<int>(joined.error().code);
    }
    shown.last_round.store(group.rounds().committed(group.rounds().open_stream("default")));
  }
  std::uint64_t view = 0;
  std::int64_t last_commit = 0;
  while (true) {
    auto const began = monotonic_ns();
    auto round = communicator.begin();
    auto const number = shown.last_round.load() + 1;
    // Written at a few places only: the measured round should be the exchange, not this.
    for (std::size_t const index :
         {std::size_t{0}, bucket.elements() / 3, bucket.elements() / 2, bucket.elements() - 1})
      values[index] = contribution(group.self(), number);
    round.aggregate(bucket);
    auto const reduction = round.commit(Deadline::after(std::chrono::seconds(60)));
    if (!reduction) {
      std::fprintf(stderr, "%s\n", reduction.error().message().c_str());
      return static_cast<int>(reduction.error().code);
    }
    auto const now = monotonic_ns();
    if (auto const gap = now - last_commit; last_commit > 0 && gap > shown.longest_gap_ns.load())
      shown.longest_gap_ns.store(gap);
    last_commit = now;
    auto const of_view = static_cast<std::uint64_t>(reduction->view);
    if (of_view != view) {
      view = of_view;
      shown.first_commit[view % FaultBoard::kMostViews].store(now);
      shown.view.store(view);
    }
    auto const members = group.view();
    if (members.id == reduction->view && !is_mean_of(*reduction, members, bucket.result())) shown.wrong.fetch_add(1);
    shown.round_ns[number % FaultBoard::kSteadyRounds].store(now - began);
    shown.last_round.store(reduction->round.number);
    shown.commits.fetch_add(1);
    if (sharing) {
      apply(bucket.result());
      sharing->boundary();
    }
    if (reduction->round.number >= board.stop_after.load()) break;
  }
  return 0;
}

}  // namespace

int fault_member_command(int argc, char** argv) {
  if (argc != 6) throw Error(Errc::bad_argument, "bench-fault-member is started by holdfast bench faults");
  MappedBoard board(argv[1], false);
  std::string seat_word = argv[2];
  if (seat_word == kSeatOfMpi) {
    char const* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
    if (rank == nullptr) throw Error(Errc::environment, "bench faults --fabric mpi needs the mpirun of Open MPI");
    seat_word = rank;
  }
  auto const seat = static_cast<std::size_t>(std::stoul(seat_word));
  auto& shown = board->members[std::min(seat, FaultBoard::kMostMembers - 1)];
  shown.pid.store(::getpid());
  int reason = static_cast<int>(Errc::environment);
  try {
    reason = train(*board, seat, {argv[3], std::stoull(argv[4]), std::stoull(argv[5])});
  } catch (Error const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    reason = static_cast<int>(error.errc());
  }
  shown.ended.store(1 + reason);
  // mpirun would end the whole job of a rank that fails.
  if (reason == 0 || argv[2] == kSeatOfMpi) return 0;
  return reason == static_cast<int>(Errc::evicted) ? kEvictedStatus : 1;
}

}  // namespace holdfast::launch
