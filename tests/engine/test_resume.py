"""Same command, same bits; and the same bits after any kill."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers.records import rows

WORKERS = 'datasets:train:num_worker_per_gpu='


def test_run_has_the_iterations_asked_for_under_their_own_numbers(reference):
    """3 images, batch 2, 8 iterations; validation every 2, checkpoints every 3 and at the end."""
    lines = rows(reference.root, 'validation')
    assert [(line['iter'], line['dataset'], line['metric']) for line in lines] == [
        (iteration, 'Val', metric) for iteration in (2, 4, 6, 8) for metric in ('psnr', 'psnr/head1')
    ]
    assert {path.stem for path in reference.models.iterdir()} == {f'net_g_{n}' for n in (3, 6, 8, 'best', 'latest')}
    assert {path.name for path in reference.states.iterdir()} == {'6.state', '8.state'}
    outcome = reference.outcome()['saved']
    state = outcome['8.state']
    assert state['iter'] == 8
    assert {entry['step'].item() for entry in state['model']['optimizer']['state'].values()} == {8}
    best = min((line for line in lines if line['metric'] == 'psnr'), key=lambda line: line['value'])
    assert state['best'] == {'value': best['value'], 'iteration': best['iter']}
    assert best['iter'] < 6, 'a resumed run must have it to remember'
    assert 'iter 8/8' in (reference.root / 'train_tiny.log').read_text()


def test_last_weights_are_those_of_the_last_state(reference, same):
    saved = reference.outcome()['saved']
    same(saved['net_g_latest.pth'], saved['net_g_8.pth'])
    for part, source in (('params', 'net_g'), ('params_ema', 'net_g_ema')):
        student = {k: v for k, v in saved['8.state']['model'][source].items() if not k.startswith('heads.')}
        same(saved['net_g_latest.pth'][part], student)
    assert not torch.equal(*(saved['net_g_latest.pth'][part]['conv_last.weight'] for part in ('params', 'params_ema')))


def test_same_command_gives_the_same_bits(reference, make_run, same):
    again = make_run()
    assert again.start().code == 0
    same(again.outcome(), reference.outcome())


def test_another_seed_gives_others(reference, make_run):
    other = make_run({'manual_seed': 8})
    assert other.start().code == 0
    weights = [run.outcome()['saved']['net_g_latest.pth']['params']['conv_last.weight'] for run in (other, reference)]
    assert not torch.equal(*weights)


@pytest.fixture(scope='module')
def events(make_run, tmp_path_factory) -> int:
    """How many calls and returns of functions a whole run has: the moments to be killed at."""
    count = tmp_path_factory.mktemp('events') / 'count'
    assert make_run().start(count_to=str(count)).code == 0
    return int(count.read_text())


@pytest.mark.slow
def test_killed_thirty_times_and_resumed_is_never_killed(make_run, events, same):
    longer = {'train': {'total_iter': 120}, 'val': {'val_freq': 10}, 'logger': {'save_checkpoint_freq': 2}}
    straight, run = make_run(longer), make_run(longer)
    assert straight.start().code == 0
    moments, killed, at = random.Random(0), 0, set()
    while killed < 30:
        workers = f'{WORKERS}{killed % 3}'
        ended = run.resume('--force_yml', workers, at_event=moments.randrange(events // 4, events))
        assert ended.code == -signal.SIGKILL, (killed, ended.err)
        killed += 1
        at.add(max((int(path.stem) for path in run.states.glob('*.state')), default=0))
    assert len(at) > 5 and max(at) < 120
    ended = run.resume()
    assert ended.code == 0, ended.err
    same(run.outcome(), straight.outcome())


@pytest.mark.parametrize('moment', ['half_written', 'os.fsync', 'os.replace'])
@pytest.mark.parametrize('name', ['training_states/6.state', 'models/net_g_6.pth', 'models/net_g_best.pth'])
def test_killed_while_saving_resumes_from_the_state_before(reference, make_run, same, moment, name):
    run = make_run()
    path = run.root / name
    temporary = str(path.with_name(f'.{path.name}.tmp'))
    accident = {moment: temporary} if moment == 'half_written' else {'before': moment, 'path': temporary}
    assert run.start(**accident).code == -signal.SIGKILL
    assert Path(temporary).stat().st_size > 0
    assert not path.exists()
    states = {} if 'best' in name else {'3.state': 3}
    assert {state.name: torch.load(state, weights_only=True)['iter'] for state in run.states.glob('*.state')} == states
    ended = run.resume()
    assert ended.code == 0, ended.err
    assert f'iterations {3 if states else 0} to 8' in ended.out
    same(run.outcome(), reference.outcome())


def test_killed_between_writing_a_state_and_deleting_the_oldest(reference, make_run, same):
    run = make_run()
    assert run.start(before='os.fsync', path=str(run.states)).code == -signal.SIGKILL
    assert {path.name for path in run.states.iterdir()} == {'3.state'}
    assert run.resume().code == 0
    same(run.outcome(), reference.outcome())


def test_network_that_draws_random_numbers_resumes_exactly(make_run, same):
    swinir = {'type': 'SwinIR', 'upscale': 2, 'upsampler': 'pixelshuffledirect', 'img_size': 8, 'window_size': 4}
    sizes = {'embed_dim': 8, 'depths': [2], 'num_heads': [2], 'mlp_ratio': 2, 'drop_path_rate': 0.5}
    changes = {'model_type': 'SRModel', 'network_g': {**swinir, **sizes}, 'val': {'heads': False}}
    train = {'aux_opt': None, 'contrastive_opt': None}
    straight, killed = (make_run({**changes, 'train': train}) for _ in range(2))
    assert straight.start().code == 0
    assert killed.start(before='os.replace', path=str(killed.states / '.6.state.tmp')).code == -signal.SIGKILL
    assert killed.resume().code == 0
    same(killed.outcome(), straight.outcome())


def test_ended_run_resumed_stays_as_it_is(reference, copy_of_reference, same):
    ended = copy_of_reference.resume()
    assert ended.code == 0, ended.err
    same(copy_of_reference.outcome(), reference.outcome())


def test_longer_run_goes_on_as_if_it_had_always_been_that_long(copy_of_reference, make_run, same):
    straight = make_run()
    longer = ('--force_yml', 'train:total_iter=10')
    assert copy_of_reference.resume(*longer).code == straight.start(*longer).code == 0
    extended, wanted = copy_of_reference.outcome(), straight.outcome()
    assert extended['saved'].pop('net_g_8.pth')
    same(extended['saved'], wanted['saved'])
    # A row of the training is written where it ends, too.
    validations = [[row for row in run['metrics'] if row['kind'] == 'validation'] for run in (extended, wanted)]
    assert validations[0] == validations[1]


def test_state_named_in_the_options_is_gone_on_from(reference, make_run, same):
    run = make_run({'path': {'resume_state': str(reference.states / '6.state')}})
    ended = run.start()
    assert ended.code == 0, ended.err
    assert 'iterations 6 to 8' in ended.out
    same(run.outcome()['saved']['8.state'], reference.outcome()['saved']['8.state'])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b'')


def overwrite_with_text(path: Path) -> None:
    path.write_text('not a state')


def overwrite_with_code(path: Path) -> None:
    torch.save({'version': 1, 'iter': 8, 'model': os.system}, path)


def overwrite_with_weights(path: Path) -> None:
    torch.save({'params': {'weight': torch.zeros(1)}}, path)


@pytest.mark.parametrize('damage', [cut, empty, overwrite_with_text, overwrite_with_code, overwrite_with_weights])
def test_unreadable_newest_state_is_named_and_the_one_before_used(reference, copy_of_reference, same, damage):
    damage(copy_of_reference.states / '8.state')
    ended = copy_of_reference.resume()
    assert ended.code == 0, ended.err
    named = [line for line in ended.out.splitlines() if str(copy_of_reference.states / '8.state') in line]
    assert len(named) == 1 and named[0].endswith('; skipped')
    assert 'iterations 6 to 8' in ended.out
    same(copy_of_reference.outcome(), reference.outcome())


def assert_refused(ended, *words: str) -> None:
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith('error: ')
    for word in words:
        assert word in line


def test_no_readable_state_is_an_error_that_leaves_everything_as_it_is(copy_of_reference):
    for path, damage in zip(copy_of_reference.states.iterdir(), (cut, empty), strict=True):
        damage(path)
    before = copy_of_reference.files()
    ended = copy_of_reference.resume()
    assert_refused(ended, str(copy_of_reference.states), 'none of the states can be read')
    assert copy_of_reference.files() == before


CHANGES = [
    ('train:optim_g:lr=5e-4', 'train.optim_g.lr was 0.001, is 0.0005'),
    ('train:scheduler:milestones=[3]', 'train.scheduler.milestones was [4, 7], is [3]'),
    ('train:ema_decay=0', 'train.ema_decay was 0.5, is 0'),
    ('train:pixel_range=1', 'train.pixel_range was 255.0, is 1.0'),
    ('manual_seed=8', 'manual_seed was 7, is 8'),
    ('network_g:head_taps=[2]', 'network_g.head_taps was [1], is [2]'),
    ('datasets:train:batch_size_per_gpu=3', 'x processes x train.accum_iter) was 2, is 3'),
]


def test_changed_mathematics_is_refused_by_key_and_leaves_everything_as_it_is(copy_of_reference):
    before = copy_of_reference.files()
    for change, message in CHANGES[:2]:
        assert_refused(copy_of_reference.resume('--force_yml', change), message)
    every = copy_of_reference.resume('--force_yml', *(change for change, _ in CHANGES))
    assert_refused(every, *(message for _, message in CHANGES))
    assert copy_of_reference.files() == before


def test_what_does_not_change_the_mathematics_may_change(reference, copy_of_reference, data, same):
    (copy_of_reference.states / '8.state').unlink()
    shutil.copytree(data / 'train', copy_of_reference.folder / 'moved')
    changes = [
        f'{WORKERS}1',
        f'datasets:train:dataroot_gt={copy_of_reference.folder}/moved/HR',
        f'datasets:train:dataroot_lq={copy_of_reference.folder}/moved/LR',
        'datasets:train:cache_images=true',
        'logger:print_freq=3',
        'logger:grad_norm_freq=1',
    ]
    ended = copy_of_reference.resume('--force_yml', *changes)
    assert ended.code == 0, ended.err
    assert 'iterations 6 to 8' in ended.out
    found, wanted = copy_of_reference.outcome(), reference.outcome()
    for outcome in (found, wanted):  # how often a row is written, and what of gradients is in it, has changed
        outcome['metrics'] = [row for row in outcome['metrics'] if row['kind'] == 'validation']
    same(found, wanted)
