#!/usr/bin/env bash
# Prepares a Python environment for this checkout and prints the path of its Python.
#
#   bash scripts/setup.sh        what training, testing and the demo need
#   bash scripts/setup.sh dev    and what the tests and linters need
#
# The environment is the active one (venv or conda), else .venv in this checkout, made if it is missing. A torch that is
# already in it is kept as it is. So for the small CPU-only build of PyTorch: make and activate an environment, install
# torch and torchvision together from PyTorch's CPU index (its "Get started" page has the command), then run this.
#
# Exit code 1: a step failed. Exit code 2: Python, torch or the environment cannot be used, or wrong arguments.
set -euo pipefail
unset CDPATH

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1-}

say() { printf '%s\n' "$*" >&2; }

refuse() {
    say "$*"
    exit 2
}

# Prints the version of Python $1; fails if it is older than 3.10 (version printed) or does not run (nothing printed).
python_version() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

make_venv() {
    local candidate version reason=''
    # The newest come last: torch is slow to support a new Python.
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python3.15 python3.16; do
        if version=$(python_version "$candidate"); then
            say "Making $1 with Python $version."
            if "$candidate" -m venv --clear "$1" >/dev/null 2>&1; then
                return
            fi
            rm -rf "$1"  # half made, it would be taken for an environment the next time
            reason="$candidate ($version) cannot make a virtual environment with pip in $1 (Debian and Ubuntu: install \
python3-venv)."
        elif [ -n "$version" ]; then
            reason=${reason:-"Python 3.10 or newer is needed, and $candidate is Python $version."}
        fi
    done
    refuse "${reason:-Python 3.10 or newer is needed, and there is no python3 on PATH.}"
}

# step WHAT COMMAND...: one line on the screen, the output in the log, its end on the screen too if COMMAND fails.
step() {
    local what=$1 started=$SECONDS logged
    logged=$(wc -l <"$log")
    shift
    printf '  %s ... ' "$what" >&2
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        say 'failed:'
        tail -n "+$((logged + 1))" "$log" | tail -n 25 >&2
        say "The whole log: $log"
        exit 1
    fi
    say "$((SECONDS - started)) s"
}

# Looks up, without importing them (torch alone takes seconds), the packages that an earlier run installed.
still_installed() {
    "$python" -c '
import os, sys
from importlib.util import find_spec
sys.path = [path for path in sys.path if path]  # the current directory does not count
here = find_spec("basicsr_clsd")
same = here is not None and here.origin is not None and os.path.samefile(here.origin, sys.argv[1])
sys.exit(not (same and all(find_spec(name) for name in ("torch", "torchvision", "basicsr"))))
' "$repo/basicsr_clsd/__init__.py" 2>/dev/null
}

# Pins the torch and torchvision that are installed, for every pip command that follows.
write_constraints() {
    "$python" -c '
import sys
from importlib.metadata import distributions
sys.path = [path for path in sys.path if path]
print("scipy<2")
for name in ("torch", "torchvision"):
    installed = next(iter(distributions(name=name)), None)
    if installed is None:
        continue
    print(f"{name}=={installed.version}")
    release = tuple(int(part) for part in installed.version.split(".")[:2])
    if name == "torch" and release < (2, 2):
        sys.exit(f"torch 2.2 or newer is needed, and this environment has {installed.version}: upgrade it or use another.")
    if name == "torch" and release < (2, 3):
        print("numpy<2")  # these were built for NumPy 1 and cannot exchange arrays with NumPy 2
' >"$constraints" || exit 2
}

case $extras in
    '') package=$repo ;;
    dev) package="${repo}[dev]" ;;
    *) refuse "Usage: bash scripts/setup.sh [dev]" ;;
esac

env=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
if [ -z "$env" ]; then
    env=$repo/.venv
    # A .venv without a Python that runs is a leftover: of an interrupted run, or of a Python since removed.
    if [ -z "$(python_version "$env/bin/python")" ]; then
        make_venv "$env"
    fi
fi
python=$env/bin/python
if ! version=$(python_version "$python"); then
    if [ -z "$version" ]; then
        refuse "The active environment $env has no working Python: deactivate it or mend it."
    fi
    refuse "Python 3.10 or newer is needed, and the environment $env has Python $version."
fi

log=$env/basicsr-clsd-setup.log
constraints=$env/basicsr-clsd-constraints.txt
stamp=$env/basicsr-clsd-setup.stamp
key="$version $(cat "$repo/pyproject.toml" "$repo/scripts/setup.sh" | cksum)"
stamped=$(cat "$stamp" 2>/dev/null || true)

# What `dev` installed holds everything that a run without it needs.
if [ "$stamped" != "$key $extras" ] && [ "$stamped" != "$key dev" ] || ! still_installed; then
    say "Setting up $env (Python $version). The first time takes minutes and several GB."
    SECONDS=0
    : >"$log"
    rm -f "$stamp"
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        step 'pip' "$python" -m ensurepip
    fi
    pip=("$python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c "$constraints")

    write_constraints
    # From setuptools 70.1 on, BasicSR builds without the wheel package; with torch, so that torch's bounds on it hold.
    step 'torch, torchvision, setuptools' "${pip[@]}" 'torch>=2.2' torchvision 'setuptools>=70.1'
    write_constraints
    if ! "$python" -c 'import torchvision' >>"$log" 2>&1; then
        refuse "torchvision does not load with the torch of this environment: install the two together, from where that \
torch came. The error is in $log"
    fi

    # In build isolation BasicSR would download another torch, only to build; older pips need to be told of PEP 517.
    build_env=(PIP_USE_PEP517=1)
    minor=${version#3.}
    if [ "${minor%%.*}" -ge 13 ]; then
        build_env+=("PYTHONPATH=$repo/scripts/build_remedy${PYTHONPATH:+:$PYTHONPATH}")
    fi
    step 'BasicSR' env "${build_env[@]}" "${pip[@]}" --no-deps --no-build-isolation 'basicsr>=1.4.2,<1.5'

    step 'this package and the rest it needs' "${pip[@]}" -e "$package"
    step 'a first import' "$python" -c 'import basicsr_clsd, basicsr'
    printf '%s\n' "$key $extras" >"$stamp"
    say "Ready after $SECONDS s."
fi
printf '%s\n' "$python"
