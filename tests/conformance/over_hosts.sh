#!/usr/bin/env bash
# The suite over tcp between three hosts of a network-namespace rig, plain and enciphered, and what happens where members
# elsewhere cannot be reached.
# Usage: over_hosts.sh PROGRAM
#
# The rig is a program `hosts` on PATH or in the folder HOLDFAST_TEST_RIG, with `hosts up N`, `hosts exec hK COMMAND` and
# `hosts down`. Without it, or without root, the test is skipped (status 77).
set -euo pipefail
program=$1
skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAILED: $*"; exit 1; }

if [ -n "${HOLDFAST_TEST_RIG:-}" ]; then PATH="$HOLDFAST_TEST_RIG:$PATH"; fi
command -v hosts > /dev/null || skip "no program 'hosts' on PATH; HOLDFAST_TEST_RIG may name the folder of a rig"
[ "$(id -u)" = 0 ] || skip "network namespaces need root"

export HOLDFAST_RIG_PREFIX="t$$"
work=$(mktemp -d)
trap 'hosts down > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
hosts up 3 --share "$work" > "$work/up.log" 2>&1 || skip "the rig cannot be set up: $(tail -n 1 "$work/up.log")"

address_of() { hosts exec "$1" hostname -I | tr ' ' '\n' | grep -v '^127\.' | head -n 1; }

# run NAME FILTER: four members, two of them on h0.
run() {
  local name=$1 filter=$2 rank=0 host
  local -a members=()
  mkdir "$work/$name"
  for host in h0 h0 h1 h2; do
    HOLDFAST_BIND_ADDRESS=$(address_of "$host") timeout 120 \
      hosts exec "$host" "$program" member tcp "$rank" 4 "$work/$name" --gtest_brief=1 --gtest_filter="$filter" \
      > "$work/$name.$rank.log" 2>&1 &
    members+=($!)
    rank=$((rank + 1))
  done
  for rank in 0 1 2 3; do
    wait "${members[$rank]}" || { tail -n 40 "$work/$name.$rank.log"; fail "$name: rank $rank"; }
  done
  grep '\[  PASSED  \]' "$work/$name.0.log"
}

run plain '*'
export HOLDFAST_JOB_SECRET=known-to-these-tests-alone HOLDFAST_TLS=on
run enciphered '*FabricExchange*:*large_ones*:*Rounds*'
unset HOLDFAST_JOB_SECRET HOLDFAST_TLS

# Members that listen on loopback although others are elsewhere are told so, and end.
mkdir "$work/loopback"
for rank in 0 1; do
  HOLDFAST_BIND_ADDRESS=127.0.0.1 HOLDFAST_START_TIMEOUT_MS=10000 timeout 60 \
    hosts exec "h$rank" "$program" member tcp "$rank" 2 "$work/loopback" --gtest_filter='*carries_small*' \
    > "$work/loopback.$rank.log" 2>&1 && fail "loopback: rank $rank found the others" &
done
wait
grep -q 'HOLDFAST_BIND_ADDRESS' "$work/loopback.0.log" || { cat "$work/loopback.0.log"; fail "loopback: no remedy"; }
echo "passed"
