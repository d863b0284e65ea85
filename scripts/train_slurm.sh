#!/usr/bin/env bash
# Trains under Slurm, one process per GPU; after a time limit or a preemption the job is queued again and goes on.
#
#   sbatch --nodes=2 --gres=gpu:8 --ntasks-per-node=8 scripts/train_slurm.sh -opt options/train_CLSD_x4.yml
#
# Start it from the repository, in the environment to train in.
#SBATCH --job-name=clsd
#SBATCH --cpus-per-task=6
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail

# The time limit's SIGTERM, two minutes ahead of it, lets every process save and end with exit code 143.
code=0
srun --kill-on-bad-exit=1 python basicsr_clsd/train.py "$@" --launcher slurm --auto_resume || code=$?
if [ "$code" = 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
