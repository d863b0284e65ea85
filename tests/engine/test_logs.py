import importlib.util
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
from helpers.records import reproducible_rows, rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def killed_and_resumed(make_run):
    """A run that was killed when it was about to save a state a second time, and went on from the first one."""
    run = make_run({'logger': {'use_tb_logger': True, 'grad_norm_freq': 1, 'save_checkpoint_freq': 3, 'print_freq': 1}})
    assert run.start(before='os.replace', path=str(run.states / '.6.state.tmp')).code == -signal.SIGKILL
    return run, run.resume()


def test_records_go_on_without_duplicates(killed_and_resumed):
    run, ended = killed_and_resumed
    assert ended.code == 0, ended.err
    log = (run.root / 'train_tiny.log').read_text()
    assert log.count('Resumed from iteration 3\n') == 1
    assert 'iterations 0 to 8' in log and 'iterations 3 to 8' in log
    assert [row['iter'] for row in rows(run.root, 'validation')] == [2, 2, 4, 4, 6, 6, 8, 8]
    assert [row['iter'] for row in rows(run.root, 'train')] == list(range(1, 9))
    assert [(row['iter'], '--auto_resume' in row['command']) for row in rows(run.root, 'start')] == [
        (0, False),
        (3, True),
    ]


def test_curves_have_everything_once(killed_and_resumed):
    run, _ = killed_and_resumed
    curves = EventAccumulator(str(run.folder / 'tb_logger' / 'tiny'))
    curves.Reload()
    terms = ['L_SR', 'L_ASR', 'L_CS']
    every = ['L_total', 'd_pos', 'd_neg', 'lr', 'it/s', 'data_wait', 'memory_GiB', *terms]
    every += [f'grad_{name}' for name in terms]
    for name in every:
        assert [event.step for event in curves.Scalars(f'train/{name}')] == list(range(1, 9)), name
    for name in ('psnr', 'psnr/head1'):
        assert [event.step for event in curves.Scalars(f'val/Val/{name}')] == [2, 4, 6, 8]
    assert curves.Images('val/Val')[-1].step == 8
    measured = [row['value'] for row in rows(run.root, 'validation') if row['metric'] == 'psnr']
    assert [event.value for event in curves.Scalars('val/Val/psnr')] == pytest.approx(measured, rel=1e-6)


def test_run_ends_with_a_summary(reference):
    log = (reference.root / 'train_tiny.log').read_text()
    values = {row['iter']: row['value'] for row in rows(reference.root, 'validation') if row['metric'] == 'psnr'}
    best = min(values, key=values.__getitem__)  # lower is better in this run
    tail = log.splitlines()[-3:]
    assert f'Last  Val: psnr {values[8]:.4f}' in tail[0]
    assert f'Best  {values[best]:.4f} at iteration {best}' in tail[1]
    assert 'Training ended at iteration 8 after 0:00:' in tail[2] and str(reference.root) in tail[2]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('wandb') is None, reason='Weights & Biases is not installed')
def test_weights_and_biases_gets_the_curves(make_run, tmp_path, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')
    run = make_run({'logger': {'use_tb_logger': True, 'wandb': {'project': 'tiny-project'}}})
    for ended in (run.start('--force_yml', 'train:total_iter=4', fresh=True), run.resume(fresh=True)):
        assert ended.code == 0, ended.err
    (run_id,) = set(re.findall(r'run (\w+) of project tiny-project', (run.root / 'train_tiny.log').read_text()))
    assert (run.root / 'wandb_id.txt').read_text() == run_id
    kept = [path for path in (run.root / 'wandb').glob('offline-run-*') if path.is_dir()]
    assert Counter(path.name.rsplit('-', 1)[-1] for path in kept)[run_id] == 2
    assert all(b'L_SR' in Path(path / f'run-{run_id}.wandb').read_bytes() for path in kept)


def test_stopped_run_goes_on_with_the_rows_of_one_that_was_not(make_run, tmp_path):
    """Asked to stop between two rows of the training, where the means of the next one are half counted."""
    changes = {'train': {'total_iter': 60}, 'logger': {'print_freq': 60, 'save_checkpoint_freq': 60}}
    straight, stopped = make_run(changes), make_run(changes)
    assert straight.start().code == 0
    best = str(stopped.models / 'net_g_best.pth')  # of the first validation
    ended = stopped.start(signal_number=signal.SIGTERM, path=best)
    assert ended.code == 143, ended.err
    assert not rows(stopped.root, 'train')
    assert stopped.resume().code == 0
    assert len(rows(stopped.root, 'train')) == 1
    assert reproducible_rows(stopped.root) == reproducible_rows(straight.root)
