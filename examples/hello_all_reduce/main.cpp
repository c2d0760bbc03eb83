// Adds one vector per member, then averages them again while one member sends nonsense.
//
//   mpirun -n 4 hello_all_reduce      or      holdfast run -n 4 -- hello_all_reduce      or just      hello_all_reduce
#include <iostream>
#include <limits>
#include <vector>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/group.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  auto group = holdfast::Group::join(holdfast::Config::from_command_line(argc, argv));
  holdfast::Communicator communicator(group);
  int const rank = group.rank(), ranks = group.world_size();

  // Any memory will do; memory of communicator.allocate() is not copied on its way.
  std::vector<float> const mine(1000, static_cast<float>(rank + 1));
  std::vector<float> sum(mine.size());
  auto const work = communicator.all_reduce(std::span(mine), std::span(sum), holdfast::ReduceOp::sum);
  auto const added = work.wait(holdfast::Deadline::after(10s));  // never waits longer, whatever the others do
  if (!added) {
    std::cerr << "rank " << rank << ": " << added.error().message() << std::endl;
    return added.error().exit_code();
  }
  if (rank == 0)
    std::cout << "1 + ... + " << ranks << " = " << sum[0] << " over " << communicator.fabric() << ", "
              << added->sent_bytes << " bytes sent per rank" << std::endl;

  // The last rank's row is not a number. A rule that tolerates one such row leaves it out and says so.
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
