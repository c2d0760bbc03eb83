#include <array>
#include <cstdio>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/runtime/config.hpp>
#include <holdfast/runtime/group.hpp>

int main() {
  auto group = holdfast::Group::join(holdfast::Config::from_environment());
  holdfast::Communicator communicator(group);
  std::array<float, 3> const in{1, 2, 3};
  std::array<float, 3> out{};
  communicator.all_reduce(std::span(in), std::span(out), holdfast::ReduceOp::sum).get();
  if (out != in) return 1;  // one member: the sum is its own row
  std::puts("consumer: ok");
}
