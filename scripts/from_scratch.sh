#!/usr/bin/env bash
# Trains a small Llama with early exits from random weights on real text: backbone, exits and final layer together.
#   scripts/from_scratch.sh [--set KEY=VALUE ...]     on top of configs/from-scratch.json, for example --set steps=1000
set -euo pipefail
source "$(dirname "$0")/common.sh"
scripts/setup.sh

folder=$build/from-scratch
rm -rf "$folder"
mkdir -p "$folder"
PATH="$build/bin:$PATH"

say "1. a Llama of random weights, with the small byte-level tokenizer of the tests, and exits after layers 2, 4 and 6"
run ee-convert create --config configs/models/llama-3m.json --tokenizer tests/tokenizer/golden/qwen2 --output "$folder/random"
run ee-convert attach --model "$folder/random" --exit-layers 2,4,6 --kind norm --head shared --output "$folder/exits"

say "2. train everything"
run ee-tune --config configs/from-scratch.json --set model.path="$folder/exits" --set output="$folder/trained" "$@"

say "3. what it says"
run ee-infer --model "$folder/trained" --prompt "The function returns" --max-new-tokens 32 --threshold 0.8 --show-exits
