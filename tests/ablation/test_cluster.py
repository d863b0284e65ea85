"""``scripts/ablate.py --executor slurm``, on Slurm's own daemons."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[2]
ABLATE = REPO / 'scripts' / 'ablate.py'
ITERATIONS = 300
on_slurm = pytest.mark.slow


@pytest.fixture
def small_set(tmp_path, make_pairs, tiny_options, write_yaml):
    """``small_set(*changes, iterations=300)``: the file of a set with a run for each; all is in ``tmp_path``."""
    make_pairs(tmp_path / 'train')
    make_pairs(tmp_path / 'val', seed=1)

    def make(*changes, iterations=ITERATIONS):
        length = {'train': {'total_iter': iterations}, 'val': {'val_freq': 100}}
        options = tiny_options(tmp_path, {**length, 'logger': {'save_checkpoint_freq': 10}})
        test = {**options, 'datasets': {'test_1': options['datasets']['val']}}
        write_yaml(tmp_path / 'test.yml', {key: value for key, value in test.items() if key != 'train'})
        for number, change in enumerate(changes, 1):
            write_yaml(tmp_path / f'run{number}.yml', {**options, 'name': f'run{number}', **change})
        runs = [{'opt': f'run{number}.yml'} for number in range(1, len(changes) + 1)]
        return write_yaml(tmp_path / 'set.yml', {'name': 'all', 'test': 'test.yml', 'baseline': 'run1', 'runs': runs})

    return make


def start(slurm, file, *arguments):
    command = [sys.executable, str(ABLATE), str(file), '--executor', 'slurm', '--cpus-per-task', '1', *arguments]
    with (file.parent / 'out').open('wb') as out:
        return subprocess.Popen(command, env=slurm.environment, cwd=file.parent, stdout=out, stderr=subprocess.STDOUT)


def wait_for(what, process, file):
    end = time.monotonic() + 240
    while not what():
        assert process.poll() is None and time.monotonic() < end, (file.parent / 'out').read_text()
        time.sleep(0.1)


def queue(slurm, *columns):
    return [line.split() for line in slurm.run('squeue', '--noheader', f'--format={" ".join(columns)}').splitlines()]


@on_slurm
def test_jobs_end_in_tables_though_one_fails_and_one_is_preempted(slurm, tmp_path, small_set):
    file = small_set({}, {'manual_seed': 8}, {'path': {'pretrain_network_g': '/nowhere.pth'}})
    process = start(slurm, file, '--partition', 'other')
    run = tmp_path / 'experiments' / 'run1_seed0'
    wait_for(lambda: list(run.glob('training_states/*.state')), process, file)
    job = next(number for number, name, partition in queue(slurm, '%i', '%j', '%P') if name == 'run1_seed0')
    slurm.run('scancel', '--signal=USR2', job)
    assert process.wait(timeout=400) == 1
    text = (tmp_path / 'out').read_text()
    assert 'error: run3_seed0: training: error: ' in text and '/nowhere.pth' in text.splitlines()[-1], text
    assert 'Resumed from iteration' in (run / 'train_run1_seed0.log').read_text()
    assert (tmp_path / 'results' / 'all' / 'report.html').is_file()
    weights = [torch.load(path) for path in sorted((tmp_path / 'experiments').glob(f'*/models/net_g_{ITERATIONS}.pth'))]
    assert len(weights) == 2
    again = start(slurm, file)
    assert again.wait(timeout=120) == 1
    assert (tmp_path / 'out').read_text().count('is done already') == 2


@on_slurm
def test_a_signal_cancels_the_jobs_and_a_refused_one_is_told(slurm, tmp_path, small_set):
    file = small_set({}, iterations=100_000)
    refused = start(slurm, file, '--partition', 'none')
    assert refused.wait(timeout=120) == 2
    text = (tmp_path / 'out').read_text()
    assert (
        text.startswith('error: --executor slurm: sbatch: ') and 'Invalid partition' in text and text.count('\n') == 1
    )
    process = start(slurm, file)
    states = tmp_path / 'experiments' / 'run1_seed0' / 'training_states'
    wait_for(lambda: list(states.glob('*.state')), process, file)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    end = time.monotonic() + 60
    while queue(slurm, '%i'):
        assert time.monotonic() < end
        time.sleep(0.2)
    log = (states.parent / 'train_run1_seed0.log').read_text()
    assert 'ended by SIGTERM after saving' in log


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--executor', 'slurm', '--devices', '0'], '--devices is for --executor local; Slurm gives each run its own'),
        (['--partition', 'all'], '--partition is for --executor slurm'),
        (['--gpus-per-task', '1'], '--gpus-per-task is for --executor slurm'),
    ],
)
def test_arguments_of_the_other_executor_are_refused(run_command, small_set, arguments, message):
    ended = run_command('scripts/ablate', small_set({}), *arguments)
    assert (ended.code, ended.err) == (2, f'error: {message}\n')


def test_missing_extra_is_told_with_its_command(run_command, small_set, tmp_path):
    (tmp_path / 'hidden').mkdir()
    (tmp_path / 'hidden' / 'submitit.py').write_text('raise ImportError')
    env = {**os.environ, 'PYTHONPATH': f'{tmp_path / "hidden"}:{os.environ.get("PYTHONPATH", "")}'}
    ended = run_command('scripts/ablate', small_set({}), '--executor', 'slurm', env=env, fresh=True)
    assert ended.code == 2
    assert ended.err == "error: --executor slurm: submitit is not installed; pip install 'basicsr-clsd[cluster]'\n"
