#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/launcher.hpp>

#include <holdfast/runtime/error.hpp>

namespace holdfast::net {
namespace {

using ::testing::HasSubstr;

Placement place(std::map<std::string, std::string> const& variables, Config const& config = {}) {
  return find_placement(config, [&](char const* name) -> std::optional<std::string> {
    auto const found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

Config member(int rank, int world_size, std::string rendezvous) {
  Config config;
  config.rank = rank;
  config.world_size = world_size;
  config.rendezvous = std::move(rendezvous);
  return config;
}

TEST(Placement, is_alone_without_a_launcher) {
  EXPECT_EQ(place({}).meeting, Meeting::alone);
  EXPECT_EQ(place({}).world_size, 1);
  EXPECT_EQ(place({{"RANK", "3"}, {"WORLD_SIZE", "4"}}).meeting, Meeting::alone);
}

TEST(Placement, follows_the_configuration) {
  auto const file = place({}, member(1, 3, "file:///tmp/x"));
  EXPECT_EQ(file.meeting, Meeting::file);
  EXPECT_EQ(file.directory, "/tmp/x");
  EXPECT_EQ(file.rank, 1);
  auto const tcp = place({}, member(1, 3, "tcp://10.0.0.7:29500"));
  EXPECT_EQ(tcp.meeting, Meeting::tcp);
  EXPECT_EQ(tcp.host, "10.0.0.7");
  EXPECT_EQ(tcp.port, "29500");
  EXPECT_TRUE(tcp.spans_hosts);
  EXPECT_FALSE(place({}, member(1, 3, "tcp://localhost:29500")).spans_hosts);
  EXPECT_EQ(place({{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "5"}}, member(1, 3, "file:///x")).rank, 1);
}

TEST(Placement, reads_launchers) {
  auto const mpirun = place({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "2"}});
  EXPECT_EQ(mpirun.meeting, Meeting::mpi);
  EXPECT_EQ(mpirun.launcher_tasks, 4);
  EXPECT_EQ(place({{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}}).meeting, Meeting::alone);
  EXPECT_TRUE(place({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}})
                  .spans_hosts);
  std::map<std::string, std::string> const step{
      {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "3"}, {"SLURM_STEP_ID", "0"}, {"SLURM_JOB_ID", "77"}};
  EXPECT_EQ(place(step).meeting, Meeting::mpi);
  Config shared;
  shared.rendezvous = "file:///shared";
  EXPECT_EQ(place(step, shared).meeting, Meeting::file);
  EXPECT_EQ(place(step, shared).rank, 3);
  EXPECT_EQ(place(step, shared).job_id, "77");
  EXPECT_EQ(place({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}).meeting, Meeting::alone) << "a batch script";
}

TEST(Placement, reads_torchrun_with_its_agent_on_the_port) {
  std::map<std::string, std::string> variables{
      {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "localhost"}, {"MASTER_PORT", "29500"}};
  EXPECT_EQ(place(variables).meeting, Meeting::tcp);
  EXPECT_EQ(place(variables).port, "29500");
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  EXPECT_EQ(place(variables).port, "29501");
}

TEST(Placement, refuses_what_makes_no_member) {
  EXPECT_THROW((void)place({}, member(3, 3, "file:///x")), Error);
  EXPECT_THROW((void)place({}, member(0, 2, "")), Error);
  EXPECT_THROW((void)place({}, member(0, 2, "file://relative")), Error);
  EXPECT_THROW((void)place({}, member(0, 2, "tcp://host")), Error);
  EXPECT_THROW((void)place({}, member(0, 2, "tcp://host:99999")), Error);
  EXPECT_THROW((void)place({}, member(0, 2, "http://host:1")), Error);
  Config nobody;
  nobody.rendezvous = "file:///x";
  EXPECT_THROW((void)place({}, nobody), Error);
  Config half;
  half.world_size = 2;
  half.rendezvous = "file:///x";
  EXPECT_THROW((void)place({}, half), Error);
}

TEST(Placement, explains_singletons) {
  auto const placement = place({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "3"}, {"SLURM_STEP_ID", "0"}});
  EXPECT_THAT(explain_singletons(placement), HasSubstr("srun started 4"));
  EXPECT_THAT(explain_singletons(placement), HasSubstr("--mpi=pmix"));
}

}  // namespace
}  // namespace holdfast::net
