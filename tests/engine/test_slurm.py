"""Slurm's own daemons run ``scripts/train_slurm.sh``."""

import sys
import time
from pathlib import Path

import pytest
from helpers.process_runs import REPO, assert_all_ended_well, assert_same_state, options, state, states

pytestmark = pytest.mark.slow

LAST = 300  # far enough for what comes between


@pytest.fixture
def submit(slurm):
    """``submit(folder, opt)``: hands a training of 2 tasks to Slurm; returns its job, cancelled at the end."""
    jobs = []

    def submitted(folder, opt):
        python = Path(sys.executable).parent
        command = ['sbatch', '--parsable', '--ntasks=2', '--cpus-per-task=1', f'--output={folder}/out']
        command += [f'--export=ALL,PATH={python}:{slurm.environment["PATH"]}', REPO / 'scripts' / 'train_slurm.sh']
        jobs.append(slurm.run(*command, '-opt', opt, cwd=REPO))
        return jobs[-1]

    yield submitted
    for job in jobs:
        slurm.run('scancel', '--quiet', job)


def wait_for_state(folder, iteration):
    end = time.monotonic() + 240
    while not any(int(path.stem) >= iteration for path in states(folder).glob('*.state')):
        assert time.monotonic() < end, (folder / 'out').read_text()
        time.sleep(0.05)


def test_job_that_is_signalled_and_requeued_goes_on_and_ends_with_the_same_bits(run_folder, run_command, slurm, submit):
    whole, opt = run_folder('whole', options(3, total_iter=LAST))
    assert_all_ended_well(run_command('train', '-opt', opt, processes=2, slurm=True))
    folder, opt = run_folder('queued', options(3, total_iter=LAST))
    job = submit(folder, opt)
    wait_for_state(folder, 10)
    slurm.run('scancel', '--signal=TERM', job)  # as at the time limit: the tasks save, and the script queues the job
    wait_for_state(folder, 30)
    slurm.run('scontrol', 'requeue', job)  # as by a preemption: Slurm ends the tasks, and queues the job
    slurm.wait(job, 'COMPLETED')
    text = (folder / 'out').read_text()
    assert text.count('error: ended by SIGTERM after saving') >= 1, text
    assert text.count('Resumed from iteration') == 2, text
    assert_same_state(state(folder, LAST), state(whole, LAST))


def test_mistake_of_the_user_ends_the_job_with_its_line(run_folder, slurm, submit):
    folder, opt = run_folder('queued', options(3, total_iter=-1))
    job = submit(folder, opt)
    slurm.wait(job, 'FAILED')
    assert 'train.total_iter' in (folder / 'out').read_text()
