#pragma once

namespace holdfast::launch {

// The subcommands. argv[0] is the subcommand's own name; the result is the exit status.
// They throw UsageError for a command line that cannot be carried out and Error for an environment that cannot work.

int run_command(int argc, char** argv);
int bench_command(int argc, char** argv);
/// `holdfast bench rules`; argv[0] is "rules".
int bench_rules_command(int argc, char** argv);
/// One rank of a measurement; started by bench_command alone.
int bench_rank_command(int argc, char** argv);
/// Starts and watches one host's ranks; started by `holdfast run --hosts` alone.
int agent_command(int argc, char** argv);
/// One member of a fault measurement; started by `holdfast bench faults` alone.
int fault_member_command(int argc, char** argv);
int doctor_command(int argc, char** argv);
int plan_command(int argc, char** argv);
int rules_command(int argc, char** argv);

}  // namespace holdfast::launch
