"""A run's folder belongs to one living process: real processes, kills, and names of other machines in the lock."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from basicsr_clsd.runtime.locks import exclusive

TRAIN = Path(__file__).resolve().parents[2] / 'basicsr_clsd' / 'train.py'
PATIENCE_S = 240

pytestmark = pytest.mark.slow


@pytest.fixture
def start():
    """``start(run, *arguments)``: a training in the background, killed with the test."""
    started = []

    def begin(run, *arguments):
        command = [sys.executable, str(TRAIN), '-opt', str(run.opt), *arguments]
        process = subprocess.Popen(
            command, cwd=run.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def lock_of(run):
    return run.root.with_name('.tiny.lock')


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def saved(run):
    return lambda: any(run.states.glob('*.state'))


def long_run(make_run, workers=0):
    run = make_run({'logger': {'print_freq': 1000, 'save_checkpoint_freq': 20}, 'val': {'val_freq': None}})
    return run, ['--force_yml', 'train:total_iter=100000', f'datasets:train:num_worker_per_gpu={workers}']


@pytest.mark.parametrize('resuming', [[], ['--auto_resume']])
def test_second_run_of_a_name_is_refused_and_touches_nothing(make_run, start, resuming):
    run, long = long_run(make_run)
    first = start(run, *long)
    wait_for(saved(run), first)
    names = {path for path in run.folder.rglob('*') if path.suffix != '.state'}
    ended = run.start(*resuming, *long)
    assert ended.code == 2
    owner = f'process {first.pid} on {socket.gethostname()}'
    assert ended.err == f'error: {run.root}: {owner} is writing to it; use another name\n'
    assert names <= set(run.folder.rglob('*'))
    assert not list(run.folder.rglob('*_archived_*'))
    assert first.poll() is None


@pytest.mark.parametrize('workers', [0, 2])
def test_killed_run_blocks_nobody(make_run, start, workers):
    """Not even by its loader processes, which live on for a while."""
    run, long = long_run(make_run, workers)
    first = start(run, *long)
    wait_for(saved(run), first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert json.loads(lock_of(run).read_text())['pid'] == first.pid
    iteration = max(int(path.stem) for path in run.states.glob('*.state'))
    ended = run.resume('--force_yml', f'train:total_iter={iteration + 1}')
    assert (ended.code, ended.err) == (0, '')
    assert 'did not end in order' not in ended.out  # it is known to be gone
    assert not lock_of(run).exists()


def test_of_two_that_resume_at_once_one_goes_on(make_run, start):
    run, long = long_run(make_run)
    ended = run.start('--force_yml', 'train:total_iter=20')
    assert ended.code == 0, ended.err
    both = [start(run, '--auto_resume', *long) for _ in range(2)]
    end = time.monotonic() + PATIENCE_S
    while all(process.poll() is None for process in both) and time.monotonic() < end:
        time.sleep(0.05)
    (refused,) = (process for process in both if process.poll() is not None)
    (other,) = (process for process in both if process is not refused)
    assert refused.returncode == 2
    assert f'process {other.pid} on ' in refused.communicate()[1]
    wait_for(lambda: any(int(path.stem) > 20 for path in run.states.glob('*.state')), other)
    assert not list(run.folder.rglob('*_archived_*'))
    other.send_signal(signal.SIGTERM)
    assert other.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert not lock_of(run).exists()


def test_lock_of_another_machine_is_told_apart(make_run):
    """A lock that the file system gives away, but that another machine has not taken its name out of."""
    run = make_run()
    lock_of(run).parent.mkdir(parents=True)
    elsewhere = {'host': 'node17', 'boot_id': 'of another start', 'pid': 4321}
    lock_of(run).write_text(json.dumps(elsewhere), encoding='utf-8')
    ended = run.start()
    assert (ended.code, ended.err) == (0, '')
    (line,) = (line for line in ended.out.splitlines() if 'did not end in order' in line)
    assert line.startswith(f'{run.root}: process 4321 on node17 had it')


@pytest.mark.parametrize('content', ['', 'half a li', '[]', '{"host": "a"}'])
def test_lock_that_a_kill_cut_off_blocks_nobody(make_run, content):
    run = make_run()
    lock_of(run).parent.mkdir(parents=True)
    lock_of(run).write_text(content, encoding='utf-8')
    ended = run.start()
    assert (ended.code, ended.err) == (0, '')
    assert not lock_of(run).exists()


def test_failing_start_leaves_no_lock_and_no_folder(make_run):
    run = make_run()
    assert run.start('--force_yml', 'network_g:num_feat=-1').code == 2
    assert not run.root.parent.exists()


def test_all_processes_of_a_refused_run_end_and_one_speaks(make_run, run_command):
    run = make_run()
    lock_of(run).parent.mkdir(parents=True)
    with exclusive(lock_of(run), run.root):
        main, other = run_command('train', '-opt', run.opt, processes=2)
        assert (main.code, other.code, other.err) == (2, 2, '')
        assert f'process {os.getpid()} on {socket.gethostname()} is writing to it' in main.err
    assert not list(run.folder.rglob('tiny'))
