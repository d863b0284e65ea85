#!/usr/bin/env bash
# Prepares the environment, then runs the tests: bash scripts/test.sh [--all] [pytest's arguments, seen from the root]
#
#   bash scripts/test.sh          the fast tier
#   bash scripts/test.sh --all    and the slow one: processes, kills, memory limits, compilers, browsers, environments
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tier=(-m 'not slow')
if [ "${1-}" = --all ]; then
    tier=()
    shift
fi
python=$(bash scripts/setup.sh dev)
# A file's tests share their set-up, so they stay in one process. When a process dies, its test fails and the rest is not
# run: pytest-xdist would wait for ever for the tests of the dead process.
exec "$python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --max-worker-restart 0 ${tier[@]+"${tier[@]}"} "$@"
