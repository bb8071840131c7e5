#!/usr/bin/env bash
# Benchmarks against a peer in the same run: scripts/bench.sh tuning-step|tuning-cache|parallel
# The last line printed is one JSON object; ratios are ours over the peer's, higher is better.
set -euo pipefail
source "$(dirname "$0")/common.sh"

declare -A benchmarks=([tuning-step]=tests/benchmarks/tuning_step.py [tuning-cache]=tests/benchmarks/tuning_cache.py
  [parallel]=tests/benchmarks/parallel.py)
declare -A setup=([tuning-step]=--python)  # for a peer in PyTorch
name=${1:-}
if [[ -z "$name" || -z "${benchmarks[$name]:-}" ]]; then
  echo "usage: scripts/bench.sh NAME     names: ${!benchmarks[*]}" >&2
  exit 2
fi
scripts/setup.sh ${setup[$name]:-}
exec python3 "${benchmarks[$name]}"
