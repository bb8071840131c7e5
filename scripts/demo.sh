#!/usr/bin/env bash
# From nothing to a chat with early exits, on a real pretrained model: attaches exits to SmolLM2-135M-Instruct, tunes
# them on real text, shows what that brought, and lets it talk.
#   scripts/demo.sh [--minutes N] [FOLDER]     N: minutes of tuning (default 5); FOLDER: your text instead of Python's manual
set -euo pipefail
source "$(dirname "$0")/common.sh"

minutes=5 text=/usr/share/doc/python3.11/html/_sources
while [[ $# -gt 0 ]]; do
  case "$1" in
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    -*) echo "demo.sh: unknown option $1 (known: --minutes N)" >&2; exit 2 ;;
    *) text=$(realpath -e "$1"); shift ;;
  esac
done
scripts/setup.sh

demo=$build/demo
rm -rf "$demo"
mkdir -p "$demo"
show() {  # prints the command as one would type it, and runs it
  local word line='$'
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@+-]+$ ]] && line+=" $word" || line+=" '$word'"
  done
  printf '\n%s\n' "${line//"$root/"/}"
  "$@"
}
PATH="$build/bin:$PATH"

# Every 40th file is kept for the evaluation.
mkdir -p "$demo/train" "$demo/held-out"
find "$text" -type f -size +2k | LC_ALL=C sort | awk '{print (NR % 40 ? "train" : "held-out") "\t" $0}' |
  while IFS=$'\t' read -r part file; do
    cp "$file" "$demo/$part/$(realpath --relative-to="$text" "$file" | tr / _)"
  done

say "1. attach exits after layers 10, 16 and 22, solved on 48 k tokens"
show ee-convert attach --model "$(smollm2_gguf)" --exit-layers 10,16,22 --kind mlp --translator full --fit "$demo/train" \
  --fit-tokens 49152 --output "$demo/exits"
show ee-convert inspect "$demo/exits"

say "2. tune them: measure the speed, then as many steps as fit into $minutes minutes"
tune=(ee-tune --config configs/smollm2-fit.json --set model.path="$demo/exits" --set "data.train=[\"$demo/train\"]"
  --set "data.validation=[\"$demo/held-out\"]" --set data.cache="$demo/tokens")
"${tune[@]}" --set steps=4 --set schedule.warmup_steps=1 --set output="$demo/speed" --set evaluation.at_start=false --set evaluation.sequences=1 \
  --set logging.every_steps=1 >"$demo/speed.log" 2>&1 || { cat "$demo/speed.log"; exit 1; }
steps=$(python3 - "$demo/speed.logs/metrics.jsonl" "$minutes" <<'PYTHON'
import json, sys
seconds = [row["seconds_per_step"] for row in map(json.loads, open(sys.argv[1])) if "seconds_per_step" in row]
print(max(10, int(float(sys.argv[2]) * 60 / min(seconds))))
PYTHON
)
show "${tune[@]}" --set steps="$steps" --set output="$demo/tuned"

say "3. the exits before and after, on files that were not trained on"
for model in exits tuned; do
  show ee-infer eval --model "$demo/$model" --data "$demo/held-out" --sequences 16
done

say "4. a chat, each token coloured by the exit that made it"
for threshold in 1.0 0.8; do
  show ee-infer --model "$demo/tuned" --chat --prompt "What is gravity?" --max-new-tokens 64 --threshold "$threshold" --show-exits
done
