import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.process_runs import (
    BATCH,
    REPO,
    assert_all_ended_well,
    assert_near,
    assert_same_state,
    leaves,
    log,
    metrics,
    only_error,
    options,
    state,
    states,
    weights,
)

ALL_TERMS = {'self_distill_opt': {'type': 'L1Loss', 'loss_weight': 5}}
NO_NEGATIVES = {'contrastive_opt': None}


@pytest.fixture
def alone(run_folder, run_command):
    """``alone(**train)``: the folder of a run in one process."""

    def run(**train):
        folder, opt = run_folder('alone', options(BATCH, **train))
        ended = run_command('train', '-opt', opt)
        assert ended.code == 0, ended.err
        return folder

    return run


# After one step of SGD with a huge rate the weights are the gradient, to rounding.
GRADIENT = {'optim_g': {'type': 'SGD', 'lr': 1e9, 'betas': None}, 'total_iter': 1, 'scheduler': {'milestones': [9]}}


@pytest.mark.parametrize(
    ('processes', 'parts', 'terms'),
    [(2, 1, ALL_TERMS), (3, 1, ALL_TERMS), (1, 3, NO_NEGATIVES), (2, 3, NO_NEGATIVES), (3, 2, NO_NEGATIVES)],
)
def test_loss_and_gradients_are_those_of_one_process(alone, run_folder, run_command, processes, parts, terms):
    one = alone(**GRADIENT, **terms)
    changes = options(BATCH // processes // parts, accum_iter=parts, **GRADIENT, **terms)
    folder, opt = run_folder('many', changes)
    assert_all_ended_well(run_command('train', '-opt', opt, processes=processes))
    ours, theirs = (torch.cat([value.flatten() for value in weights(run, 1).values()]) for run in (folder, one))
    assert theirs.norm() > 1e6
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()
    for name in ('L_SR', 'L_ASR', 'd_pos', 'd_neg', 'L_total')[slice(0, 5, 4) if terms == NO_NEGATIVES else slice(5)]:
        here, there = (float(re.findall(rf'\b{name}: ([\d.]+)', log(run))[0]) for run in (folder, one))
        assert here == pytest.approx(there, rel=1e-4), name


@pytest.mark.parametrize(('processes', 'slurm'), [(2, False), (3, False), (2, True)])
def test_processes_train_as_one_does(alone, run_folder, run_command, processes, slurm):
    one = alone(**ALL_TERMS)
    folder, opt = run_folder('many', options(BATCH // processes, **ALL_TERMS))
    ended = run_command('train', '-opt', opt, processes=processes, slurm=slurm)
    assert_all_ended_well(ended)
    assert_near(weights(folder), weights(one), 1e-5)
    assert f'global batch {BATCH} = {BATCH // processes} images x {processes} processes;' in ended[0].out
    assert [process.out for process in ended[1:]] == [''] * (processes - 1)
    ours, theirs = metrics(folder), metrics(one)
    assert len(ours) == len(theirs) == 4
    for here, there in zip(ours, theirs, strict=True):
        assert here == {**there, 'value': pytest.approx(there['value'], abs=1e-2)}


@pytest.mark.slow
def test_validation_and_test_give_the_numbers_of_one_process(alone, run_folder, run_command):
    still = {'optim_g': {'type': 'SGD', 'lr': 0, 'betas': None}, 'total_iter': 1}
    one = alone(**still)
    opt = one / 'tiny.yml'
    tested = ['--force_yml', f'path:pretrain_network_g={one}/experiments/tiny/models/net_g_latest.pth']
    assert run_command('test', '-opt', opt, *tested).code == 0
    table = one / 'results' / 'tiny' / 'results.json'
    values = leaves(json.loads(table.read_text())['sets'])
    assert len(values) > 10
    for processes in (2, 3):
        folder, many = run_folder(f'many{processes}', options(BATCH // processes, **still))
        assert_all_ended_well(run_command('train', '-opt', many, processes=processes))
        assert [line['value'] for line in metrics(folder)] == pytest.approx(
            [line['value'] for line in metrics(one)], abs=1e-9
        )
        assert_all_ended_well(run_command('test', '-opt', opt, *tested, processes=processes))
        assert leaves(json.loads(table.read_text())['sets']) == pytest.approx(values, abs=1e-9)


def test_run_goes_on_in_other_numbers_of_processes_and_says_what_has_changed(alone, run_folder, run_command):
    one = alone(**ALL_TERMS)
    folder, opt = run_folder('many', options(BATCH // 2, **ALL_TERMS))
    short = '--force_yml', 'train:total_iter=10'
    assert_all_ended_well(run_command('train', '-opt', opt, *short, processes=2))
    changed = ['--auto_resume', '--force_yml', f'datasets:train:batch_size_per_gpu={BATCH // 3}']
    ended = run_command('train', '-opt', opt, *changed, processes=3)
    assert_all_ended_well(ended)
    for text in ('train.total_iter was 10, is 20', 'datasets.train.batch_size_per_gpu was 3, is 2'):
        assert f'Changed since the state was saved: {text}' in ended[0].out
    assert_near(weights(folder), weights(one), 1e-5)
    refused = run_command('train', '-opt', opt, *changed, processes=2)
    assert [process.code for process in refused] == [2, 2]
    assert 'was 6, is 4' in only_error(refused)


def test_nan_in_one_process_skips_the_step_in_all(run_folder, run_command):
    loss = {'pixel_opt': {'type': 'FaultyLoss', 'loss_weight': 0.5}, 'total_iter': 6}
    outcomes = {}
    for name, nan_at in (('nan', 4), ('whole', 0)):
        folder, opt = run_folder(name, {**options(3, **loss), 'logger': {'save_checkpoint_freq': 1, 'keep_states': 9}})
        ended = run_command('train', '-opt', opt, processes=2, everywhere={'nan_at': 0}, accident={'nan_at': nan_at})
        assert_all_ended_well(ended)
        outcomes[name] = folder
    nan, whole = outcomes['nan'], outcomes['whole']
    assert_same_state(weights(nan, 3), weights(whole, 3))
    assert_same_state(weights(nan, 4), weights(nan, 3))
    before, after = (weights(nan, iteration)['/model/net_g/conv_last.weight'] for iteration in (4, 5))
    assert not torch.equal(before, after)
    lines = [line for line in log(nan).splitlines() if 'skipped' in line]
    told = [line for line in lines if 'L_SR' in line]
    assert len(told) == 1 and 'Iteration 4 skipped: not finite: L_SR, L_total; files: ' in told[0]
    assert told[0].count('.png') == 3
    assert 'skipped' not in log(whole)


def test_too_many_skipped_steps_end_all_processes(run_folder, run_command):
    folder, opt = run_folder('nan', options(3, optim_g={'type': 'SGD', 'lr': 1e30, 'betas': None}, max_skipped_steps=3))
    ended = run_command('train', '-opt', opt, processes=2)
    assert [process.code for process in ended] == [1, 1]
    assert only_error(ended).startswith('error: 3 steps in a row were skipped')


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize('processes', [1, 2])
def test_signal_to_one_ends_all_after_saving(run_folder, run_command, number, code, processes):
    folder, opt = run_folder('stopped', options(2, total_iter=100_000))
    accident = {'signal_number': number, 'path': str(states(folder) / '10.state')}
    if processes == 1:
        ended = [
            run_command('train', '-opt', opt, '--force_yml', 'datasets:train:num_worker_per_gpu=2', accident=accident)
        ]
    else:
        ended = run_command('train', '-opt', opt, processes=processes, accident=accident)
    assert [process.code for process in ended] == [code] * processes
    assert only_error(ended) == f'error: ended by {number.name} after saving; --auto_resume goes on from here'
    newest = max(int(path.stem) for path in states(folder).glob('*.state'))
    one_more = '--auto_resume', '--force_yml', f'train:total_iter={newest + 1}'
    ended = (
        [run_command('train', '-opt', opt, *one_more)]
        if processes == 1
        else run_command('train', '-opt', opt, *one_more, processes=processes)
    )
    assert_all_ended_well(ended)
    assert f'iterations {newest:,} to {newest + 1:,}' in ended[0].out


def test_failure_of_one_process_ends_all_with_its_code_and_one_line(run_folder, run_command):
    folder, opt = run_folder('broken', options(3))
    for path in sorted((folder / 'train' / 'HR').iterdir())[:3]:
        path.write_bytes(path.read_bytes()[:-300])
    ended = run_command('train', '-opt', opt, processes=2)
    assert [process.code for process in ended] == [2, 2]
    assert 'not an image that can be decoded' in only_error(ended)


FAULTY = {'pixel_opt': {'type': 'FaultyLoss', 'loss_weight': 0.5}}
A_MINUTE = {'nan_at': 0, 'limit_s': 60}


@pytest.mark.parametrize('stuck', [False, True])
def test_error_in_the_backward_of_one_process_ends_all(run_folder, run_command, stuck):
    # The other process waits for gradients, and hears that a connection was closed; or it hears of nothing.
    folder, opt = run_folder('broken', options(3, **FAULTY))
    ended = run_command(
        'train',
        '-opt',
        opt,
        processes=2,
        everywhere={**A_MINUTE, 'stuck_at': 3 * stuck},
        accident={'error_at': 3, 'stuck_at': 0},
    )
    assert [process.code for process in ended] == [1, 1], ended
    assert 'ValueError: this backward failed' in ended[1].err
    assert 'another process of the run has ended' in ended[0].err
    assert not list(states(folder).iterdir())


def test_full_disk_of_the_process_that_writes_ends_a_test_of_all(run_folder, run_command):
    folder, opt = run_folder('full', options(6, total_iter=1))
    assert run_command('train', '-opt', opt).code == 0
    tested = ['--force_yml', f'path:pretrain_network_g={folder}/experiments/tiny/models/net_g_latest.pth']
    assert run_command('test', '-opt', opt, *tested).code == 0
    results = folder / 'results' / 'tiny'
    room = (results / 'tiny.yml').stat().st_size
    assert (results / 'results.json').stat().st_size > room
    full = {**A_MINUTE, 'stuck_at': 1, 'file_limit': room}
    ended = run_command('test', '-opt', opt, *tested, processes=2, everywhere=full)
    assert [process.code for process in ended] == [1, 1], ended
    assert 'File too large' in only_error(ended) and 'bicubic' in ended[0].out


def test_full_disk_of_the_process_that_writes_ends_all(run_folder, run_command):
    folder, opt = run_folder('full', options(3))
    ended = run_command('train', '-opt', opt, processes=2, everywhere={'file_limit': 10_000})
    assert [process.code for process in ended] == [1, 1]
    assert 'File too large' in only_error(ended) and 'net_g_best.pth' in only_error(ended)
    assert not list(states(folder).iterdir())


def torchrun(folder, processes, opt, restarts=0):
    """Start the training command as a user does."""
    command = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
    command += [f'--max-restarts={restarts}', str(REPO / 'basicsr_clsd' / 'train.py'), '-opt', str(opt)]
    with open(folder / 'out', 'w') as out:
        return subprocess.Popen([sys.executable, *command], cwd=folder, stdout=out, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_killed_process_under_torchrun_starts_all_again_and_ends_with_the_same_bits(run_folder, run_command):
    whole, opt = run_folder('whole', options(3))
    assert_all_ended_well(run_command('train', '-opt', opt, processes=2))
    folder, opt = run_folder('killed', options(3))
    process = torchrun(folder, 2, opt, restarts=1)
    try:
        while not (states(folder) / '10.state').exists():
            assert process.poll() is None, (folder / 'out').read_text()
            time.sleep(0.01)
        workers = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(workers.stdout.split()[-1]), signal.SIGKILL)
        assert process.wait(timeout=240) == 0, (folder / 'out').read_text()
    finally:
        process.kill()
    assert 'iterations 10 to 20' in (folder / 'out').read_text()
    assert_same_state(state(folder), state(whole))
    assert metrics(folder) == metrics(whole)
