#!/usr/bin/env bash
# Renders each batch template, checks its syntax, and plays the scheduler for the Slurm one: a stand-in mpirun checkpoints
# on USR2 and ends with 75, upon which the script must put the job back into the queue.
# Usage: templates_test.sh TEMPLATE_FOLDER
set -euo pipefail
templates=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

render() {
  sed -e 's/@JOB_NAME@/train/g' -e 's/@NODES@/2/g' -e 's/@TASKS_PER_NODE@/4/g' -e 's/@CPUS_PER_TASK@/1/g' \
    -e 's/@CPUS_PER_NODE@/4/g' -e 's/@TIME@/01:00:00/g' -e 's/@IMAGE@/train:1/g' -e 's/@WORDS@/words/g' \
    -e 's|@PROGRAM@|./train --lr 0.1|g' "$1"
}

for template in "$templates"/*.in; do
  name=$(basename "$template" .in)
  render "$template" > "$work/$name"
  grep -q '@[A-Z_]*@' "$work/$name" && fail "$name: a word was not replaced: $(grep -o '@[A-Z_]*@' "$work/$name" | head -n 1)"
  grep -q -e '--with-ft ulfm' -e 'holdfast run --hosts' "$work/$name" || fail "$name: survivors would not go on"
  case $name in
    *.yaml) if python3 -c 'import yaml' 2> /dev/null; then python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' "$work/$name" || fail "$name"; fi ;;
    *) bash -n "$work/$name" || fail "$name: syntax" ;;
  esac
done

mkdir "$work/bin"
cat > "$work/bin/mpirun" <<'STAND_IN'
#!/usr/bin/env bash
echo "$@" > "$WORK/mpirun-arguments"
trap 'exit 75' USR2
touch "$WORK/ready"
while true; do sleep 0.05; done
STAND_IN
printf '#!/usr/bin/env bash\necho "$@" >> "$WORK/scontrol-calls"\n' > "$work/bin/scontrol"
chmod +x "$work"/bin/*

WORK=$work SLURM_JOB_ID=17 PATH=$work/bin:$PATH bash "$work/slurm.sbatch" > "$work/log" 2>&1 &
job=$!
for _ in $(seq 200); do [ -e "$work/ready" ] && break; sleep 0.05; done
[ -e "$work/ready" ] || fail "slurm.sbatch did not start mpirun: $(cat "$work/log")"
kill -USR1 "$job"
status=0
wait "$job" || status=$?
[ "$status" -eq 75 ] || fail "slurm.sbatch ended with $status, not 75: $(cat "$work/log")"
grep -q '^requeue 17$' "$work/scontrol-calls" || fail "slurm.sbatch did not requeue"
grep -q -- './train --lr 0.1$' "$work/mpirun-arguments" || fail "slurm.sbatch starts $(cat "$work/mpirun-arguments")"
echo "all templates are fine"
