#!/usr/bin/env bash
# Puts `ee-tune reference` into README.md between its two markers, or with --check fails when it is not what stands there.
#   scripts/readme_reference.sh [--check] [EE-TUNE]
set -euo pipefail
cd "$(dirname "$0")/.."
check=0
[[ "${1:-}" == --check ]] && { check=1; shift; }
program=${1:-build/bin/ee-tune}

wanted=$(awk -v table="$("$program" reference)" '
  /^<!-- reference -->$/ { print; print table; inside = 1 }
  /^<!-- \/reference -->$/ { inside = 0 }
  !inside' README.md | awk '!(/^<!-- reference -->$/ && seen++)')
if [[ $check -eq 1 ]]; then
  diff <(printf '%s\n' "$wanted") README.md && echo "README.md has the reference of this ee-tune"
else
  printf '%s\n' "$wanted" >README.md
fi
