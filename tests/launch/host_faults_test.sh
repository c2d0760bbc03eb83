#!/bin/bash
# Hosts on emulated networks: one is cut off and comes back, and one loses its power. The measuring command fails
# unless all that should go on do.
set -u
holdfast=$1
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

measure() {
  local status=0
  "$holdfast" bench faults --fabric tcp --bytes 1M --tries 2 "$@" 2>"$errors" || status=$?
  cat "$errors" >&2
  if grep -q "emulated hosts take root" "$errors"; then exit 77; fi
  [[ $status -eq 0 ]] || exit 1
}

measure --ranks 3 --fault cut,host --seed 1
measure --ranks 4 --hosts 2 --fault cut --seed 2  # nobody has a majority until healing
