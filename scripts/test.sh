#!/usr/bin/env bash
# Sets up, builds and runs the tests.
#   scripts/test.sh [-L label] [other ctest options]     labels: unit, model, multiprocess, slow; without -L: all but slow
set -euo pipefail
source "$(dirname "$0")/common.sh"
scripts/setup.sh --test

selection=(-LE slow)
for argument in "$@"; do
  [[ $argument == -L* || $argument == -R* ]] && selection=()
done
log=$build/test.log
say "testing: ctest ${selection[*]} $*"
ctest --test-dir "$build" --output-on-failure --no-tests=error -j"$(nproc)" "${selection[@]}" "$@" 2>&1 | tee "$log"

# A run that skipped everything has tested nothing.
if ! grep -qE '^ *[0-9]+/[0-9]+ Test .* Passed ' "$log"; then
  echo "test.sh: no test passed: all of them were skipped" >&2
  exit 1
fi
