#!/usr/bin/env bash
# The tests with the oldest torch and torchvision that pyproject.toml allows, in a virtual environment of their own:
#
#     tests/oldest.sh [WORDS FOR PYTEST, instead of -n 2]
#
# It is removed at the end (5 GB), unless OLDEST names a folder to keep it in, and to take it from the next time.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${OLDEST:-$(mktemp -d)/venv}
[ -n "${OLDEST:-}" ] || trap 'rm -rf "$(dirname "$venv")"' EXIT
oldest() { sed -n "s/^ *\"$1>=\(.*\)\",\$/$1==\1.*/p" pyproject.toml; }
[ -d "$venv" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[test]' "$(oldest torch)" "$(oldest torchvision)"
"$venv/bin/python" -c 'import torch, torchvision; print("torch", torch.__version__, "torchvision", torchvision.__version__)'
[ $# -gt 0 ] || set -- -n 2
PATH="$(realpath "$venv")/bin:$PATH" pytest "$@"
