#!/usr/bin/env bash
# Starts N ranks of a command on this machine, with torchrun's variables:  scripts/launch.sh N ee-tune --config tune.json
# The exit code is that of the first rank that failed (75, "another rank was lost", counts last). When a rank fails,
# the others have EE_LAUNCH_GRACE seconds (10) to end, then get SIGTERM, then SIGKILL. Ctrl-C and SIGTERM are passed on.
set -uo pipefail
if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch.sh N command [arguments...]      N: number of ranks" >&2
  exit 2
fi
count=$1
shift
if ! command -v -- "$1" > /dev/null; then
  echo "launch.sh: no program $1; give its path" >&2
  exit 2
fi

# A port that nothing on this machine listens on.
free_port() {
  local port
  for _ in {1..100}; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo "$port"; return; }
  done
}

export WORLD_SIZE=$count LOCAL_WORLD_SIZE=$count MASTER_ADDR=127.0.0.1
MASTER_PORT=${MASTER_PORT:-$(free_port)}
export MASTER_PORT
unset "${!TORCHELASTIC_@}"

# Each rank is the leader of its own process group (set -m), out of reach of the terminal's Ctrl-C, which comes through
# this shell once; setpriv ends it if this shell is killed.
pids=()
passed_on=0
pass_on() { passed_on=$2; kill -s "$1" "${pids[@]}" 2> /dev/null; }
trap 'pass_on INT 2' INT
trap 'pass_on TERM 15' TERM
set -m
for ((rank = 0; rank < count; ++rank)); do
  input=/dev/null
  [[ $rank == 0 && ! -t 0 ]] && input=/dev/stdin
  RANK=$rank LOCAL_RANK=$rank setpriv --pdeathsig KILL -- "$@" < $input &
  pids+=($!)
done
set +m

code=0
deadline=0
signal=TERM
while ((${#pids[@]})); do
  running=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2> /dev/null; then
      running+=("$pid")
      continue
    fi
    wait "$pid"
    ended=$?
    ((ended == 0)) && continue
    ((code == 0 || code == 75)) && [[ $signal == TERM ]] && code=$ended
    ((ended != 128 + passed_on && deadline == 0)) && deadline=$((SECONDS + ${EE_LAUNCH_GRACE:-10}))
  done
  pids=("${running[@]}")
  if ((deadline && SECONDS >= deadline && ${#pids[@]})); then
    kill -s $signal "${pids[@]}" 2> /dev/null
    signal=KILL
    deadline=$((SECONDS + ${EE_LAUNCH_GRACE:-10}))
  fi
  sleep 0.1
done
exit $code
