#!/usr/bin/env bash
# Trains in several processes on this machine, or on several machines: one process per GPU.
#
#   bash scripts/train_torchrun.sh 4 -opt options/train_CLSD_x4.yml
#   NNODES=2 RDZV=first-machine:29400 bash scripts/train_torchrun.sh 8 -opt ...   # the same command on both machines
#
# A process that dies takes the others down; all start again, up to MAX_RESTARTS times, from the last checkpoint. Of
# several machines one may die and come back: start the command there again. So they train with --auto_resume.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "Usage: bash scripts/train_torchrun.sh PROCESSES -opt YAML [further arguments of train.py]" >&2
    exit 2
fi
count=$1
shift
train=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/basicsr_clsd/train.py
if [ "${NNODES:-1}" = 1 ]; then
    where=(--standalone)
else
    where=(--nnodes "$NNODES" --rdzv-backend c10d --rdzv-endpoint "${RDZV:?host:port of the first machine}" --rdzv-id clsd)
    # Otherwise torchrun would tell the address of the first process once, and a machine that comes back would not hear.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    set -- "$@" --auto_resume
fi
exec torchrun "${where[@]}" --nproc-per-node "$count" --max-restarts "${MAX_RESTARTS:-3}" "$train" "$@"
