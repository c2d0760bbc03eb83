#!/usr/bin/env bash
# The Slurm template without MPI on a cluster of a rig: a job is told that its time is up, saves, goes back into the queue,
# starts again and ends well.
# Usage: slurm_test.sh TEMPLATE_FOLDER HOLDFAST
#
# The rig is a program `slurm` on PATH or in the folder HOLDFAST_TEST_RIG. Without it, or without root, the test is skipped
# (status 77).
set -euo pipefail
templates=$1
holdfast=$2
skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAILED: $*"; [ ! -e "$work/train-$job.log" ] || cat "$work/train-$job.log"; exit 1; }

if [ -n "${HOLDFAST_TEST_RIG:-}" ]; then PATH="$HOLDFAST_TEST_RIG:$PATH"; fi
command -v slurm > /dev/null || skip "no program 'slurm' on PATH; HOLDFAST_TEST_RIG may name the folder of a rig"
[ "$(id -u)" = 0 ] || skip "a cluster needs root"

export HOLDFAST_RIG_PREFIX="s$(($$ % 100000))"
work=$(mktemp -d)
job=none
trap 'slurm down > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
slurm up 3 > "$work/up.log" 2>&1 || skip "the cluster cannot be set up: $(tail -n 1 "$work/up.log")"
eval "$(slurm env)"

mkdir "$work/bin"
ln -s "$holdfast" "$work/bin/holdfast"
export PATH="$work/bin:$PATH"
cat > "$work/train" <<'PROGRAM'
#!/usr/bin/env bash
if [ "${SLURM_RESTART_COUNT:-0}" = 1 ]; then echo "resumed as rank $RANK of $WORLD_SIZE on $(hostname)"; exit 0; fi
trap 'exit 75' USR2
touch "$1/ready-$RANK"
while true; do sleep 0.1; done
PROGRAM
chmod +x "$work/train"
sed -e 's/@JOB_NAME@/train/' -e 's/@NODES@/3/' -e 's/@TASKS_PER_NODE@/2/g' -e 's/@CPUS_PER_TASK@/1/' \
  -e 's/@TIME@/00:10:00/' -e "s|@PROGRAM@|$work/train $work|" "$templates/slurm_hosts.sbatch.in" > "$work/batch"
cd "$work"
job=$(sbatch --parsable batch)

wait_for() { # wait_for SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "$what"
    sleep 0.2
  done
}
all_ready() { [ "$(find "$work" -name 'ready-*' | wc -l)" = 6 ]; }
is_done() { [ -z "$(squeue -h -j "$job" 2> /dev/null)" ] || [ "$(squeue -h -o %T -j "$job")" = COMPLETED ]; }

wait_for 60 "the ranks did not start" all_ready
scancel --batch --signal=USR1 "$job"
wait_for 60 "the job was not requeued" grep -q 'back into the queue' "train-$job.log"
wait_for 180 "the job did not start again" grep -q 'restart 1' "train-$job.log"
wait_for 60 "the job did not end" is_done
[ "$(grep -c 'resumed as rank [0-5] of 6 on n[123]' "train-$job.log")" = 6 ] || fail "not all six ranks resumed"
echo "passed"
