#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <holdfast/runtime/log.hpp>

#include "members.hpp"

/// `conformance threads|processes|processes_over_tcp|launcher [GoogleTest flags]`, or as one of several processes that
/// others start: `conformance member FABRIC RANK RANKS DIRECTORY [GoogleTest flags]`. See members.hpp. Ranks above 0
/// speak only of failures.
namespace {

using holdfast::conformance::become_rank;
using holdfast::conformance::become_rank_of_launcher;

int run_tests(int argc, char** argv, bool speaks) {
  if (!speaks) ::testing::GTEST_FLAG(brief) = true;
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

int run_processes(std::string const& fabric, int argc, char** argv) {
  char const* const variable = std::getenv("HOLDFAST_TEST_RANKS");
  int const ranks = variable != nullptr ? std::atoi(variable) : 3;
  std::string directory = std::filesystem::temp_directory_path() / "holdfast-conformance-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) return 1;
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    pid_t const child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      become_rank(fabric, rank, ranks, directory);
      std::exit(run_tests(argc, argv, rank == 0));
    }
    children.push_back(child);
  }
  int worst = 0;
  for (pid_t const child : children) {
    int status = 0;
    if (::waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) worst = 1;
  }
  std::filesystem::remove_all(directory);
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  std::string_view const members = argc > 1 ? argv[1] : "threads";
  holdfast::set_log_level("warning");
  if (members == "processes") return run_processes("shm", argc, argv);
  if (members == "processes_over_tcp") return run_processes("tcp", argc, argv);
  if (members == "launcher") {
    become_rank_of_launcher("mpi");
    return run_tests(argc, argv, holdfast::conformance::is_first_rank());
  }
  if (members == "member" && argc >= 6) {
    int const rank = std::atoi(argv[3]);
    become_rank(argv[2], rank, std::atoi(argv[4]), argv[5]);
    return run_tests(argc, argv, rank == 0);
  }
  return run_tests(argc, argv, true);
}
