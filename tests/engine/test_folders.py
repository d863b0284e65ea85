"""What a start does to an earlier run's folders, and what a full disk does."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.records import rows


def test_earlier_run_is_renamed_whole(copy_of_reference):
    tb = copy_of_reference.folder / 'tb_logger' / 'tiny'
    tb.mkdir(parents=True)
    (tb / 'curve').write_bytes(b'1')
    before = copy_of_reference.files()
    ended = copy_of_reference.start('--force_yml', 'logger:use_tb_logger=true')
    assert ended.code == 0, ended.err
    after = copy_of_reference.files()
    for top in ('experiments', 'tb_logger'):
        (archived,) = copy_of_reference.folder.glob(f'{top}/tiny_archived_*')
        assert str(archived) in ended.out
        prefix = f'{top}/{archived.name}/'
        kept = {name.removeprefix(prefix): content for name, content in after.items() if name.startswith(prefix)}
        prefix = f'{top}/tiny/'
        assert kept
        assert kept == {name.removeprefix(prefix): content for name, content in before.items() if prefix in name}
    assert (copy_of_reference.states / '8.state').exists()
    assert [path.name.startswith('events.') for path in tb.iterdir()] == [True]


def small_val_image(run):
    folder = run.folder / 'val'
    folder.mkdir()
    for name, side in (('HR', 16), ('LR', 12)):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / 'a.png'), np.zeros((side, side, 3), np.uint8))
    return [f'datasets:val:dataroot_gt={folder}/HR', f'datasets:val:dataroot_lq={folder}/LR'], 'a.png'


def broken_val_image(run):
    folder = run.folder / 'val'
    folder.mkdir()
    for name, side in (('HR', 32), ('LR', 16)):
        (folder / name).mkdir()
        path = folder / name / 'a.png'
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return [f'datasets:val:dataroot_gt={folder}/HR', f'datasets:val:dataroot_lq={folder}/LR'], 'val/LR/a.png'


def missing_data(_run):
    return ['datasets:train:dataroot_gt=/nowhere/HR'], '/nowhere/HR'


def unknown_key(_run):
    return ['train:totaliter=8'], 'train.totaliter'


def unknown_argument(_run):
    return ['train:optim_g:betaz=[0.9, 0.99]'], 'train.optim_g.betaz'


def impossible_network(_run):
    return ['network_g:head_taps=[3]'], 'head_taps'


def network_without_heads(_run):
    return ['network_g:head_taps=[]'], 'network_g.head_taps: must be a list of paths'


def missing_weights(run):
    return [f'path:pretrain_network_g={run.folder}/no.pth'], 'no.pth'


def missing_state(run):
    return [f'path:resume_state={run.folder}/no.state'], 'no.state'


def unwritable_place(run):
    return [f'path:tb_root={run.opt}'], str(run.opt)


MISTAKES = [
    small_val_image,
    broken_val_image,
    missing_data,
    unknown_key,
    unknown_argument,
    impossible_network,
    network_without_heads,
    missing_weights,
    missing_state,
    unwritable_place,
]


def assert_fails_and_leaves_everything(run, mistake, *arguments):
    overrides, named = mistake(run)
    before = run.files()
    ended = run.start(*arguments, '--force_yml', *overrides)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith('error: ') and named in line
    assert run.files() == before


@pytest.mark.parametrize('mistake', MISTAKES)
def test_failing_start_leaves_the_earlier_run_as_it_was(copy_of_reference, mistake):
    assert_fails_and_leaves_everything(copy_of_reference, mistake)


@pytest.mark.parametrize('mistake', [broken_val_image, missing_data, unwritable_place])
def test_failing_resume_leaves_the_run_as_it_was(copy_of_reference, mistake):
    assert_fails_and_leaves_everything(copy_of_reference, mistake, '--auto_resume')


def test_full_disk_ends_the_run_with_one_line_and_loses_nothing(reference, copy_of_reference, same):
    (copy_of_reference.states / '8.state').unlink()
    older = (copy_of_reference.states / '6.state').read_bytes()
    weights = max(path.stat().st_size for path in copy_of_reference.models.iterdir())
    for limit, unsaved in ((weights // 2, 'models/net_g_8.pth'), (len(older) // 2, 'training_states/8.state')):
        assert limit > 5000, 'the log must fit'
        ended = copy_of_reference.resume(file_limit=limit)
        assert ended.code == 1
        (line,) = ended.err.splitlines()
        assert line.startswith('error: ') and unsaved in line and 'File too large' in line
        assert {path.name: path.read_bytes() for path in copy_of_reference.states.iterdir()} == {'6.state': older}
        assert not list(copy_of_reference.root.rglob('.*'))
    log = (copy_of_reference.root / 'train_tiny.log').read_text()
    assert log.count('ERROR') == 2
    assert copy_of_reference.resume().code == 0
    same(copy_of_reference.outcome(), reference.outcome())


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no device that is always full')
def test_log_that_cannot_be_written_stops_nothing_and_prints_no_traceback(reference, copy_of_reference, same):
    (copy_of_reference.states / '8.state').unlink()
    log = copy_of_reference.root / 'train_tiny.log'
    log.unlink()
    log.symlink_to('/dev/full')
    ended = copy_of_reference.resume()
    assert (ended.code, ended.err) == (0, '')
    same(copy_of_reference.outcome(), reference.outcome())


def test_non_finite_losses_are_skipped_up_to_a_limit_and_reach_no_checkpoint(make_run):
    run = make_run({'logger': {'save_checkpoint_freq': 1}})
    ended = run.start('--force_yml', 'train:optim_g:type=SGD', 'train:optim_g:lr=1e30', 'train:max_skipped_steps=3')
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith('error: 3 steps in a row were skipped') and 'iteration 4' in line
    log = (run.root / 'train_tiny.log').read_text()
    assert line.removeprefix('error: ') in log
    (first,) = (text for text in log.splitlines() if 'Iteration 2 skipped' in text)
    assert 'L_SR' in first and first.count('img') == 2
    for path in run.states.iterdir():
        state = torch.load(path, weights_only=True)
        assert all(value.isfinite().all() for value in state['model']['net_g'].values())


@pytest.mark.parametrize(('images', 'batch', 'iterations'), [(3, 5, 3), (1, 3, 2), (3, 2, 5)])
def test_iterations_are_as_many_as_asked_for_whatever_the_sizes(
    tmp_path, make_pairs, tiny_options, write_yaml, run_command, images, batch, iterations
):
    make_pairs(tmp_path / 'train', count=images)
    make_pairs(tmp_path / 'val', count=1)
    sizes = {'datasets': {'train': {'batch_size_per_gpu': batch}}, 'train': {'total_iter': iterations}}
    changes = {'val': {'val_freq': 1, 'save_img': True}, 'logger': {'save_checkpoint_freq': 2}}
    opt = write_yaml(tmp_path / 'tiny.yml', tiny_options(tmp_path, {**sizes, **changes}))
    ended = run_command('train', '-opt', opt)
    assert ended.code == 0, ended.err
    root = tmp_path / 'experiments' / 'tiny'
    assert [row['iter'] for row in rows(root, 'validation')] == list(range(1, iterations + 1))
    saved = {*range(2, iterations + 1, 2), iterations, 'best', 'latest'}
    assert {path.stem for path in root.glob('models/*')} == {f'net_g_{label}' for label in saved}
    assert {path.name for path in root.glob('visualization/Val/*')} == {
        f'img1_{n}.png' for n in range(1, iterations + 1)
    }
