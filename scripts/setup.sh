#!/usr/bin/env bash
# Installs what EE-Tune needs and builds it into build/. Run it as often as you like: what is there is left alone.
#   scripts/setup.sh [--test] [--python]     --test: also what only the tests need; --python: also .venv-golden, the Python
#                                            side of goldens and benchmarks. What each package is for: third_party/README.md
set -euo pipefail
source "$(dirname "$0")/common.sh"
start=$SECONDS

with_test=0 with_python=0
for argument in "$@"; do
  case "$argument" in
    --test) with_test=1 ;;
    --python) with_python=1 ;;
    *) echo "setup.sh: unknown argument $argument (known: --test, --python)" >&2; exit 2 ;;
  esac
done

install_debian_packages() {
  local wanted missing=() package
  mapfile -t wanted < <(grep -v '^#' third_party/debian-packages.txt)
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  local as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    if ! sudo -n true 2>/dev/null; then
      printf 'setup.sh: these Debian packages are missing, and installing them needs root:\n    sudo apt-get install %s\n' \
        "${missing[*]}" >&2
      exit 2
    fi
    as_root=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  run "${as_root[@]}" apt-get update -qq
  run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# install_python FOLDER FILE [pip options]: once per content of FILE.
install_python() {
  local folder=$1 file=$2 stamp=$1/.installed-$(basename "$2")
  shift 2
  cmp -s "$file" "$stamp" && return
  [[ -x $folder/bin/python ]] || run python3 -m venv "$folder"
  say "installing $file into $(basename "$folder")"
  run "$folder/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "$@" -r "$file"
  cp "$file" "$stamp"
}

# fetch_llama_cpp PART ENTRY...: puts these entries of llama.cpp's folder into .venv/src/llama.cpp, once per version.
fetch_llama_cpp() {
  local wanted=third_party/requirements-llama-cpp.txt target=$venv/src/llama.cpp download=$venv/src/download
  local stamp=$target/.installed-${1// /-}
  cmp -s "$wanted" "$stamp" && return
  say "fetching the $1 of llama.cpp (part of a source package of 76 MB on PyPI)"
  shift
  mkdir -p "$target" "$download"
  # pip asks a source package for its name and version before it hands it over: source_only/ answers that from the
  # package's own PKG-INFO, so that no build tool is needed.
  [[ -n $(find "$download" -name '*.tar.gz') ]] ||
    run env PYTHONPATH="$root/third_party/source_only" "$venv/bin/pip" download --quiet --disable-pip-version-check \
      --no-cache-dir --no-deps --no-binary :all: --no-build-isolation --dest "$download" -r "$wanted"
  run tar -xzf "$download"/*.tar.gz -C "$target" --strip-components=3 --wildcards "${@/#/*/vendor/llama.cpp/}"
  cp "$wanted" "$stamp"
}

build_programs() {
  # CMake wants its presets in the root, where this project keeps nothing else.
  [[ -e CMakePresets.json ]] || ln -s scripts/CMakePresets.json CMakePresets.json
  # A build tree remembers absolute paths: one that was copied or moved here is of no use.
  if [[ ! -f build/build.ninja ]] || ! grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$root" build/CMakeCache.txt; then
    say "configuring (Release)"
    run cmake --preset release --fresh -Wno-dev >build-configure.log || { cat build-configure.log; exit 1; }
    mkdir -p build && mv build-configure.log build/configure.log
    grep -- '-- EE-Tune' build/configure.log
  fi
  say "building (first time: several minutes; ccache makes later ones quick)"
  run cmake --build build
}

install_debian_packages
install_python "$venv" third_party/requirements.txt --no-deps
[[ -e /dev/nvidia0 ]] && install_python "$venv" third_party/requirements-cuda.txt
[[ $with_test -eq 1 ]] && install_python "$venv" third_party/requirements-test.txt --no-deps
[[ $with_python -eq 1 ]] && install_python "$root/.venv-golden" third_party/requirements-golden.txt
fetch_llama_cpp "Jinja engine" LICENSE common/jinja 'common/json.*' 'common/unicode.*'
[[ $with_test -eq 1 ]] && fetch_llama_cpp "vocabularies and templates" 'models/ggml-vocab-*' models/templates
rm -rf "$venv/src/download"
build_programs
say "ready in $((SECONDS - start)) s: build/bin/ee-convert, build/bin/ee-tune, build/bin/ee-infer"
