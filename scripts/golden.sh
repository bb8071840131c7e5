#!/usr/bin/env bash
# Makes every golden file again with Hugging Face transformers and friends (installs them into .venv-golden first).
set -euo pipefail
source "$(dirname "$0")/common.sh"
scripts/setup.sh --test --python
for script in tests/*/make_*golden*.py; do
  say "$script"
  run "$root/.venv-golden/bin/python" "$script"
done
