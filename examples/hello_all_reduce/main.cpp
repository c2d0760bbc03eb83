// Adds one vector per member, then averages them again while one member sends nonsense.
//
//   mpirun -n 4 hello_all_reduce      or      holdfast run -n 4 -- hello_all_reduce      or just      hello_all_reduce
//
// `hello_all_reduce 10` repeats the sum for ten seconds. With HOLDFAST_ON_LOSS=shrink members may die meanwhile, and
// others join: HOLDFAST_JOIN=tcp://host:port (members say in their logs where) hello_all_reduce
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <thread>
#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/collectives/state_sharing.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  auto group = holdfast::Group::join(holdfast::Config::from_command_line(argc, argv));
  holdfast::Communicator communicator(group);
  auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 0);

  // Newcomers fetch what is registered here. A sum needs nothing of the kind: they only learn which round is next.
  holdfast::StateRegistry state;
  holdfast::StateSharing sharing(communicator, state);
  bool const is_newcomer = group.is_newcomer();
  auto const nothing = [](holdfast::ReplayedRound const&) { return holdfast::Outcome<void>(); };
  if (auto const joined = sharing.join(nothing, holdfast::Deadline::after(30s)); !joined) {
    std::cerr << joined.error().message() << std::endl;
    return joined.error().exit_code();
  }

  // Any memory will do; memory of communicator.allocate() is not copied on its way. The last element counts the members
  // whose time is over: when one says so, all stop after the same sum.
  std::vector<float> mine(1001), sum(mine.size());
  int ranks = 0;
  bool is_over = false;
  do {
    sharing.boundary();
    std::fill(mine.begin(), mine.end(), static_cast<float>(communicator.rank() + 1));
    mine.back() = std::chrono::steady_clock::now() >= end && !is_newcomer ? 1.F : 0.F;
    auto const work = communicator.all_reduce(std::span(mine), std::span(sum), holdfast::ReduceOp::sum);
    auto const added = work.wait(holdfast::Deadline::after(10s));  // never waits longer, whatever the others do
    if (!added) {
      std::cerr << "rank " << communicator.rank() << ": " << added.error().message() << std::endl;
      return added.error().exit_code();
    }
    is_over = sum.back() > 0;
    if (communicator.rank() == 0 && communicator.world_size() != ranks)
      std::cout << "1 + ... + " << communicator.world_size() << " = " << sum[0] << " over " << communicator.fabric()
                << ", " << added->sent_bytes << " bytes sent per rank" << std::endl;
    ranks = communicator.world_size();
    if (!is_over) std::this_thread::sleep_for(1ms);
  } while (!is_over);

  // The last rank's row is not a number. A rule that tolerates one such row leaves it out and says so.
  int const rank = communicator.rank();
  if (ranks < 3) return 0;
  auto bucket = communicator.allocate(1000, holdfast::DType::float32);
  auto* const row = reinterpret_cast<float*>(bucket.contribution().data());
  std::fill_n(row, bucket.elements(), rank == ranks - 1 ? std::numeric_limits<float>::quiet_NaN() : 1.F);
  holdfast::AggregateOptions options;
  options.rule = holdfast::Rule::parse("trimmed_mean");
  options.byzantine = 1;
  auto const mean = communicator.aggregate(bucket, options).wait(holdfast::Deadline::after(10s));
  if (!mean) {
    std::cerr << "rank " << rank << ": " << mean.error().message() << std::endl;
    return mean.error().exit_code();
  }
  if (rank == 0) {
    std::cout << "trimmed mean " << *reinterpret_cast<float*>(bucket.result().data());
    for (auto const& left_out : mean->excluded)
      std::cout << ", without rank " << left_out.rank << ": " << left_out.reason;
    std::cout << std::endl;
  }
  return 0;
} catch (holdfast::Error const& error) {
  std::cerr << "hello_all_reduce: " << error.what() << std::endl;
  return 1;
}
