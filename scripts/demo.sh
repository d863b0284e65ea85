#!/usr/bin/env bash
# Prepares the environment, then runs the demo: bash scripts/demo.sh [demo.py's arguments; --help lists them]
set -euo pipefail

scripts=$(dirname "${BASH_SOURCE[0]}")
python=$(bash "$scripts/setup.sh")
exec "$python" "$scripts/demo.py" "$@"
