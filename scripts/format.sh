#!/usr/bin/env bash
# Formats all C++ sources, or with --check fails when one is not formatted.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[[ "${1:-}" == --check ]] && mode=(--dry-run --Werror)
find src include tests \( -name '*.cpp' -o -name '*.h' \) -print0 | xargs -0 -P2 -n20 clang-format "${mode[@]}"
