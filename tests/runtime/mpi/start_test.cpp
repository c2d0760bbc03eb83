#include <chrono>
#include <optional>

#include <gtest/gtest.h>

#include <holdfast/runtime/group.hpp>
#include <holdfast/runtime/interop/mpi.hpp>

namespace holdfast {
namespace {

using namespace std::chrono_literals;

TEST(StartUnderMpirun, finds_the_others_by_mpi) {
  auto group = Group::join(Config::from_environment());
  auto const state = interop::mpi_state();
  ASSERT_TRUE(state);
  EXPECT_TRUE(state->initialised_by_holdfast);
  EXPECT_GE(state->thread_level, MPI_THREAD_SERIALIZED);
  int rank = -1;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(group.rank(), rank);
  EXPECT_EQ(group.world_size(), size);
  EXPECT_GT(size, 1);
  auto const agreed = group.agree("start", {{"a", "b"}}, Deadline::after(20s));
  EXPECT_TRUE(agreed) << agreed.error().message();
  EXPECT_TRUE(group.leave(Deadline::after(10s)));
}

}  // namespace
}  // namespace holdfast
