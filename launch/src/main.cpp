#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/version.hpp>

#include "commands.hpp"
#include "usage.hpp"

namespace holdfast::launch {
namespace {

struct Subcommand {
  std::string_view name;
  int (*run)(int argc, char** argv);
  std::string_view summary;  ///< empty: not shown
};

constexpr Subcommand kSubcommands[] = {
    {"run", run_command, "start a program as N ranks on this host and watch over them"},
    {"bench", bench_command, "measure a collective, against MPI on request"},
    {"plan", plan_command, "say how much bandwidth training needs, and how long it takes"},
    {"rules", rules_command, "list the aggregation rules with their bounds and sources"},
    {"doctor", doctor_command, "say what this build and this machine can do"},
    {"agent", agent_command, ""},
    {"bench-rank", bench_rank_command, ""},
    {"bench-fault-member", fault_member_command, ""},
};

void print_help() {
  std::printf(
      "holdfast %s: fault-tolerant, Byzantine-robust training for libtorch\n\n"
      "Usage: holdfast COMMAND [options]\n\n",
      version());
  for (auto const& subcommand : kSubcommands)
    if (!subcommand.summary.empty())
      std::printf("  %-10s %s\n", std::string(subcommand.name).c_str(), std::string(subcommand.summary).c_str());
  std::printf("  %-10s %s\n\n", "help",
              "this text; `holdfast help COMMAND` or `holdfast COMMAND --help` for one command");
  std::printf(
      "Programs need no wrapper to run under mpirun: mpirun -n 4 ./train\n"
      "Exit status: 0 done, 75 checkpointed and please requeue, 2 wrong usage, others error.\n");
}

int dispatch(int argc, char** argv) {
  std::string_view name = argc > 1 ? argv[1] : "help";
  if (name == "--version" || name == "version" || name == "-V") {
    std::printf("holdfast %s\n", version());
    return 0;
  }
  static char help_flag[] = "--help";
  std::vector<char*> arguments(argv + 1, argv + argc);
  if (name == "help" || name == "--help" || name == "-h") {
    if (argc <= 2) {
      print_help();
      return 0;
    }
    name = argv[2];
    arguments = {argv[2], help_flag};
  }
  arguments.push_back(nullptr);
  std::vector<std::string_view> shown;
  for (auto const& subcommand : kSubcommands) {
    if (subcommand.name == name) return subcommand.run(static_cast<int>(arguments.size()) - 1, arguments.data());
    if (!subcommand.summary.empty()) shown.push_back(subcommand.name);
  }
  shown.push_back("help");
  std::string message = "unknown command '" + std::string(name) + "'";
  if (auto const near = nearest(name, shown); !near.empty()) message += "; did you mean '" + std::string(near) + "'?";
  throw UsageError(message + " Valid: " + join(shown));
}

}  // namespace
}  // namespace holdfast::launch

int main(int argc, char** argv) {
  std::string speaker = "holdfast";
  if (argc > 1 && argv[1][0] != '-') speaker += std::string(" ") + argv[1];
  try {
    return holdfast::launch::dispatch(argc, argv);
  } catch (holdfast::launch::UsageError const& error) {
    std::fprintf(stderr, "%s: %s\n", speaker.c_str(), error.what());
    return holdfast::launch::kUsageStatus;
  } catch (holdfast::Error const& error) {
    std::fprintf(stderr, "%s: %s\n", speaker.c_str(), error.what());
    auto const code = error.errc();
    bool const is_usage = code == holdfast::Errc::bad_argument || code == holdfast::Errc::bad_config;
    return is_usage ? holdfast::launch::kUsageStatus : 1;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: %s\n", speaker.c_str(), error.what());
    return 1;
  }
}
