// `holdfast run` as a user sees it: output, exit reasons, exit status, and that no process is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shell.hpp"

namespace holdfast::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(Run, tells_each_rank_who_it_is) {
  Shell const shell;
  auto const result = shell.run(
      R"(exec $HOLDFAST run -n 3 -- sh -c 'echo $HOLDFAST_RANK/$HOLDFAST_WORLD_SIZE $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $OMP_NUM_THREADS ${#HOLDFAST_JOB_ID} $HOLDFAST_RENDEZVOUS')");
  EXPECT_EQ(result.status, 0) << result.err;
  auto const folder = " file://" + shell.path().string() + "/holdfast-run-";
  EXPECT_THAT(result.out, HasSubstr("0/3 0/3 0/3 1 16" + folder));
  EXPECT_THAT(result.out, HasSubstr("[1] 1/3 1/3 1/3 1 16" + folder));
  EXPECT_THAT(result.out, HasSubstr("[2] 2/3 2/3 2/3 1 16" + folder));
}

TEST(Run, removes_the_rendezvous_folder) {
  Shell const shell;
  auto const result = shell.run("$HOLDFAST run -n 2 true; ls -d holdfast-run-* 2> /dev/null");
  EXPECT_EQ(result.out, "");
}

TEST(Run, keeps_thread_counts_and_passes_variables) {
  Shell const shell;
  auto const result = shell.run(
      "export OMP_NUM_THREADS=5; $HOLDFAST run -n 1 -x COLOUR=red --env SHADE='dark blue' -- sh -c 'echo "
      "$OMP_NUM_THREADS $COLOUR $SHADE'");
  EXPECT_EQ(result.out, "5 red dark blue\n");
}

TEST(Run, marks_lines_of_other_ranks_and_all_errors) {
  Shell const shell;
  auto const result = shell.run(R"($HOLDFAST run -n 2 -- sh -c 'printf "a\nb"; echo warn >&2')");
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, HasSubstr("a\nb"));
  EXPECT_THAT(result.out, AllOf(HasSubstr("[1] a\n"), HasSubstr("[1] b\n"), Not(HasSubstr("[0]"))));
  EXPECT_THAT(result.err, AllOf(HasSubstr("[0] warn\n"), HasSubstr("[1] warn\n")));
}

TEST(Run, passes_a_large_binary_stream_of_rank_0_unchanged) {
  Shell const shell;
  auto const result = shell.run(R"(
    head -c 30000001 /dev/urandom > bytes
    $HOLDFAST run -n 2 -- sh -c 'if [ $RANK = 0 ]; then cat bytes; fi' | cmp - bytes && echo plain
    $HOLDFAST run -n 2 --log-dir logs -- sh -c 'if [ $RANK = 0 ]; then cat bytes; fi' | cmp - bytes && echo logged
    cmp bytes logs/rank-0.out && echo log)");
  EXPECT_EQ(result.out, "plain\nlogged\nlog\n") << result.err;
}

TEST(Run, takes_large_output_of_all_ranks_without_deadlock) {
  Shell const shell;
  auto const result = shell.run("$HOLDFAST run -n 4 -- seq 1 300000 | wc -l");
  EXPECT_EQ(result.out, "1200000\n");
}

TEST(Run, ends_when_the_reader_goes_away) {
  Shell const shell;
  auto const result = shell.run("$HOLDFAST run -n 2 -- yes | head -n 1; echo ${PIPESTATUS[0]}");
  EXPECT_EQ(result.out, "y\n141\n") << result.err;
}

TEST(Run, writes_a_log_per_rank) {
  Shell const shell;
  auto const result =
      shell.run(R"($HOLDFAST run -n 2 --output-filename logs/a -- sh -c 'echo out $RANK; echo err $RANK >&2')");
  EXPECT_EQ(result.status, 0) << result.err;
  auto const logs = shell.path() / "logs" / "a";
  EXPECT_EQ(contents(logs / "rank-0.out"), "out 0\n");
  EXPECT_EQ(contents(logs / "rank-1.out"), "out 1\n");
  EXPECT_EQ(contents(logs / "rank-0.err"), "err 0\n");
  EXPECT_EQ(contents(logs / "rank-1.err"), "err 1\n");
}

TEST(Run, quiet_shows_the_others_output_in_the_log_alone) {
  Shell const shell;
  auto const result = shell.run("$HOLDFAST run -n 2 --quiet --log-dir logs -- sh -c 'echo out $RANK'");
  EXPECT_EQ(result.out, "out 0\n");
  EXPECT_EQ(contents(shell.path() / "logs" / "rank-1.out"), "out 1\n");
}

TEST(Run, names_the_signal_that_ended_a_rank_and_returns_its_status) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST run -n 4 -- sh -c 'if [ $RANK = 3 ]; then kill -9 $$; fi; exit 0'");
  EXPECT_EQ(result.status, 137);
  EXPECT_THAT(result.err, ContainsRegex("rank 3 \\(pid [0-9]+\\) ended by signal 9 \\(Killed\\) after [0-9.]+ s"));
}

// Rank 1 is gone only when the launcher has seen its end, so rank 0 fails second for sure.
constexpr char kRank1Fails[] = R"(sh -c 'if [ $RANK = 1 ]; then echo $$ > pid.new; mv pid.new pid; exit $FIRST; fi
  until [ -e pid ] && ! kill -0 $(cat pid) 2> /dev/null; do sleep 0.02; done; exit $SECOND')";

TEST(Run, returns_the_status_of_the_first_rank_that_failed) {
  Shell const shell;
  auto const result = shell.run(std::string("export FIRST=7 SECOND=9; exec $HOLDFAST run -n 2 -- ") + kRank1Fails);
  EXPECT_EQ(result.status, 7);
  EXPECT_THAT(result.err, ContainsRegex("rank 1 \\(pid [0-9]+\\) exited with status 7"));
  EXPECT_THAT(result.err, HasSubstr("first failure: rank 1"));
}

TEST(Run, keeps_75_only_when_all_that_failed_ended_with_it) {
  Shell const shell;
  EXPECT_EQ(shell.run("exec $HOLDFAST run -n 3 -- sh -c 'if [ $RANK = 2 ]; then exit 0; fi; exit 75'").status, 75);
  EXPECT_EQ(shell.run(std::string("export FIRST=75 SECOND=3; exec $HOLDFAST run -n 2 -- ") + kRank1Fails).status, 3);
}

TEST(Run, gives_the_others_a_grace_period_then_ends_them) {
  Shell const shell;
  auto const result =
      shell.run("exec $HOLDFAST run -n 3 --grace 1 -- sh -c 'if [ $RANK = 1 ]; then exit 4; fi; sleep 50'");
  EXPECT_EQ(result.status, 4);
  EXPECT_GE(result.seconds, 1.0);
  EXPECT_LT(result.seconds, 10.0);
  EXPECT_THAT(result.err, HasSubstr("ending rank 0, rank 2: still running after the grace period"));
}

TEST(Run, kills_what_ignores_the_end) {
  Shell const shell;
  auto const result = shell.run(
      "exec $HOLDFAST run -n 2 --grace 0.2 -- sh -c 'if [ $RANK = 1 ]; then exit 4; fi; trap \"\" TERM; while :; do "
      "sleep 1; done'");
  EXPECT_EQ(result.status, 4);
  EXPECT_LT(result.seconds, 12.0);
  EXPECT_THAT(result.err, HasSubstr("killing rank 0"));
}

TEST(Run, leaves_survivors_alone_that_end_by_themselves) {
  Shell const shell;
  auto const result =
      shell.run("exec $HOLDFAST run -n 2 -- sh -c 'if [ $RANK = 1 ]; then exit 4; fi; sleep 0.5; echo saved'");
  EXPECT_EQ(result.out, "saved\n");
  EXPECT_THAT(result.err, Not(HasSubstr("still running")));
}

// The marker is an argument of each sleep, so that a process that stayed can be found and counted.
constexpr char kStart[] = R"shell(
  marker=$((100000 + $$))
  count() { local n=0; for p in /proc/[0-9]*; do if tr '\0' ' ' < $p/cmdline 2> /dev/null | grep -q "^sleep $marker "; then n=$((n + 1)); fi; done; echo $n; }
  await() { for i in $(seq 200); do if [ $(count) = $1 ]; then return; fi; sleep 0.05; done; echo "never $1, but $(count)"; }
)shell";

TEST(Run, interrupt_ends_all_and_leaves_no_process) {
  Shell const shell;
  auto const result = shell.run(std::string(kStart) + R"(
    $HOLDFAST run -n 3 -- sh -c "setsid sleep $marker & sleep $marker & wait" & run=$!
    await 6; kill -INT $run; wait $run; echo $?; count)");
  EXPECT_EQ(result.out, "130\n0\n") << result.err;
}

TEST(Run, second_interrupt_kills_at_once) {
  Shell const shell;
  auto const result = shell.run(std::string(kStart) + R"(
    $HOLDFAST run -n 2 --grace 50 -- sh -c "trap 'echo caught' INT; sleep $marker & while :; do wait; sleep 0.1; done" > log & run=$!
    await 2; kill -INT $run; until grep -q '^caught' log; do sleep 0.05; done
    kill -INT $run; wait $run; echo $?; count)");
  EXPECT_EQ(result.out, "137\n0\n") << result.err;
  EXPECT_LT(result.seconds, 20.0);
}

TEST(Run, a_termination_signal_lets_ranks_checkpoint_and_ask_for_requeue) {
  Shell const shell;
  auto const result = shell.run(R"(
    $HOLDFAST run -n 2 -- sh -c "trap 'exit 75' TERM; touch ready-\$RANK; while :; do sleep 0.05; done" & run=$!
    until [ -e ready-0 ] && [ -e ready-1 ]; do sleep 0.05; done
    kill -TERM $run; wait $run; echo $?)");
  EXPECT_EQ(result.out, "75\n") << result.err;
}

TEST(Run, forwards_the_checkpoint_signal_and_goes_on) {
  Shell const shell;
  auto const result = shell.run(R"(
    $HOLDFAST run -n 2 -- sh -c "trap 'touch saved-\$RANK' USR1; touch ready-\$RANK; until [ -e stop ]; do sleep 0.05; done" & run=$!
    until [ -e ready-0 ] && [ -e ready-1 ]; do sleep 0.05; done
    kill -USR1 $run; until [ -e saved-0 ] && [ -e saved-1 ]; do sleep 0.05; done
    touch stop; wait $run; echo $?)");
  EXPECT_EQ(result.out, "0\n") << result.err;
}

TEST(Run, ranks_die_with_a_killed_launcher) {
  Shell const shell;
  auto const result = shell.run(std::string(kStart) + R"(
    $HOLDFAST run -n 2 -- sleep $marker & run=$!
    await 2; kill -KILL $run; wait $run 2> /dev/null; await 0; count)");
  EXPECT_EQ(result.out, "0\n") << result.err;
}

TEST(Run, kills_what_a_rank_leaves_behind) {
  Shell const shell;
  auto const result = shell.run(std::string(kStart) + R"(
    $HOLDFAST run -n 2 -- sh -c "sleep $marker & setsid sleep $marker & exit 0"; echo $?; count)");
  EXPECT_EQ(result.out, "0\n0\n") << result.err;
  EXPECT_LT(result.seconds, 20.0);
}

TEST(Run, starts_a_lost_rank_again_as_a_newcomer_up_to_its_limit) {
  Shell const shell;
  auto const result = shell.run(
      R"(exec $HOLDFAST run --min 1 --max 2 --max-restarts 1 --log-dir logs -- sh -c '
    echo "$LOCAL_RANK:${HOLDFAST_RANK:-none}:${HOLDFAST_JOIN%%:*}" | tee -a starts
    if [ $LOCAL_RANK = 1 ]; then kill -9 $$; fi
    until [ $(grep -c ^1 starts) = 2 ]; do sleep 0.05; done; sleep 0.5')");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("rank 1 is started again in 1.0 s (1 of 1 restarts)"),
                                HasSubstr("1 of 2 ranks were lost; the others went on and ended well")));
  EXPECT_EQ(contents(shell.path() / "logs" / "rank-1.out"), "1:1:\n1:none:file\n");
}

TEST(Run, ends_the_job_below_the_least_number_of_ranks_and_asks_for_requeue_if_they_do) {
  Shell const shell;
  auto const result = shell.run(
      R"(exec $HOLDFAST run --min 2 --max 2 --max-restarts 1 -- sh -c '
    trap "exit 75" TERM; if [ $LOCAL_RANK = 1 ]; then kill -9 $$; fi; while :; do sleep 0.05; done')");
  EXPECT_EQ(result.status, 75) << result.err;
  EXPECT_THAT(result.err, HasSubstr("fewer than 2 ranks are left: ending the job"));
}

TEST(Run, collects_its_own_events) {
  Shell const shell;
  auto const result =
      shell.run("$HOLDFAST run -n 2 --events log sh -c 'echo $HOLDFAST_EVENT_LOG; exit $RANK'; cat log");
  EXPECT_THAT(result.out,
              AllOf(HasSubstr(shell.path().string() + "/log\n"), HasSubstr(R"("event":"start","process":0)"),
                    HasSubstr(R"("event":"exit","process":1)"), HasSubstr(R"("status":1)")));
}

TEST(Run, names_a_program_that_cannot_be_executed) {
  Shell const shell;
  for (auto const* const options : {"-n 2", "-n 2 --mpi"}) {
    auto const result = shell.run(std::string("exec $HOLDFAST run ") + options + " -- ./missing");
    if (std::string(result.err).find("no mpirun") != std::string::npos) continue;
    EXPECT_EQ(result.status, 127) << options << result.err;
    EXPECT_THAT(result.err, HasSubstr("cannot execute './missing'")) << options;
  }
}

TEST(Run, dry_run_prints_what_would_be_started_and_starts_nothing) {
  Shell const shell;
  auto const result = shell.run("$HOLDFAST run -n 2 --dry-run --log-dir logs -- touch 'a file'; ls");
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("HOLDFAST_RANK=0 "), HasSubstr("HOLDFAST_RANK=1 "), HasSubstr(" touch 'a file'\n"),
                    HasSubstr("HOLDFAST_WORLD_SIZE=2 "), Not(HasSubstr("\na file\n")), Not(HasSubstr("\nlogs\n"))));
}

TEST(Run, accepts_the_spellings_of_other_launchers) {
  Shell const shell;
  for (auto const* const spelling :
       {"-n 2", "-np 2", "--np 2", "--ranks=2", "--nproc-per-node 2", "--nproc-per-node=2", "--nproc_per_node=2"}) {
    auto const result = shell.run(std::string("exec $HOLDFAST run ") + spelling + " sh -c 'echo $WORLD_SIZE'");
    EXPECT_THAT(result.out, HasSubstr("2\n")) << spelling << ": " << result.err;
  }
}

TEST(Run, accepts_elastic_sizes_of_torchrun) {
  Shell const shell;
  auto const result =
      shell.run("exec $HOLDFAST run --nnodes=1:2 --nproc-per-node=2 --max-restarts=0 sh -c 'echo $WORLD_SIZE'");
  EXPECT_THAT(result.out, HasSubstr("4\n")) << result.err;
}

TEST(Run, refuses_a_bad_command_line_in_one_line) {
  Shell const shell;
  struct Case {
    char const* arguments;
    char const* message;
  };
  for (auto const& [arguments, message] :
       {Case{"run -n 0 true", "--ranks: '0' is not valid; expected a whole number from 1"},
        Case{"run -n two true", "--ranks: 'two' is not valid"}, Case{"run -n", "is missing an argument"},
        Case{"run --grace -1 true", "--grace: '-1' is not valid"},
        Case{"run --lgo-dir x true", "did you mean '--log-dir'?"}, Case{"run -n 2", "no program given"},
        Case{"run -x =1 true", "--env: '=1' is not valid"},
        Case{"run --min 3 --max 2 true", "--min: 3 is more than the 2 ranks to start"},
        Case{"run -n 3 --max 2 true", "--max: 2 is less than the 3 ranks to start"},
        Case{"rnu", "unknown command 'rnu'; did you mean 'run'?"}}) {
    auto const result = shell.run(std::string("exec $HOLDFAST ") + arguments);
    EXPECT_EQ(result.status, 2) << arguments;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

TEST(Run, help_and_version_end_well) {
  Shell const shell;
  for (auto const* const arguments :
       {"--help", "help", "run --help", "help run", "bench --help", "doctor --help", "rules --help", "rules"}) {
    auto const result = shell.run(std::string("exec $HOLDFAST ") + arguments);
    EXPECT_EQ(result.status, 0) << arguments;
    EXPECT_GT(result.out.size(), 100u) << arguments;
  }
  EXPECT_THAT(shell.run("exec $HOLDFAST --version").out, StartsWith("holdfast "));
}

TEST(RunThroughMpi, dry_run_prints_the_exact_line) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST run -n 99 --mpi --dry-run -- ./train --lr 0.1");
  if (result.err.find("no mpirun") != std::string::npos) GTEST_SKIP() << result.err;
  EXPECT_THAT(result.out, HasSubstr(" -n 99 "));
  EXPECT_THAT(result.out, HasSubstr(" ./train --lr 0.1\n"));
  if (result.out.find("--with-ft") == std::string::npos) GTEST_SKIP() << "not Open MPI 5: " << result.out;
  EXPECT_THAT(result.out, HasSubstr("mpirun --with-ft ulfm --mca coll '^han' "));
  EXPECT_THAT(result.out, HasSubstr(" --oversubscribe --mca mpi_yield_when_idle 1 "));
}

TEST(RunThroughMpi, starts_the_ranks_and_passes_output) {
  Shell const shell;
  auto const result = shell.run("exec $HOLDFAST run -n 2 --mpi -- sh -c 'echo rank $OMPI_COMM_WORLD_RANK'");
  if (result.err.find("no mpirun") != std::string::npos) GTEST_SKIP() << result.err;
  if (result.out.find("rank 0") == std::string::npos && result.out.find("rank") != std::string::npos)
    GTEST_SKIP() << "not Open MPI";
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("rank 0\n"), HasSubstr("rank 1\n")));
}

}  // namespace
}  // namespace holdfast::launch::test
