#!/usr/bin/env bash
# Prepares the environment, then runs the tests: bash scripts/test.sh [pytest's arguments, seen from the repository root]
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash scripts/setup.sh dev)
# A file's tests share their set-up, so they stay in one process.
exec "$python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile "$@"
