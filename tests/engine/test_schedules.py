"""Runs with schedules: resumed to the same bits, and in several processes as in one."""

import re
import signal

import pytest
import torch

SRVGG = {'type': 'SRVGGNetCompact', 'num_feat': 8, 'num_conv': 2, 'upscale': 2}
NETWORK = {'type': 'WithHeads', 'student': SRVGG, 'taps': {'evenly': 1}, 'head': {'num_block': 1, 'num_feat': 8}}
# The heads come in, fade, and go; the student of L_SR rests while they are alone.
COMING_AND_GOING = {
    'pixel_opt': {'schedule': {'start_iter': 2, 'warmup_iter': 6, 'shape': 'sigmoid'}},
    'aux_opt': {'schedule': {'anneal_start': 4, 'anneal_end': 12}},
    'contrastive_opt': {
        'schedule': {'start_iter': 3, 'warmup_iter': 4, 'anneal_start': 8, 'anneal_end': 12, 'anneal_shape': 'cosine'}
    },
    'total_iter': 16,
}
LATE = {
    'aux_opt': {'schedule': {'start_iter': 5, 'warmup_iter': 8}},
    'contrastive_opt': {'schedule': {'start_iter': 9}},
    'total_iter': 16,
}
GATED = {
    'optim_g': {'lr': 5e-3},
    'scheduler': {'milestones': [1000]},
    'contrastive_opt': {'schedule': {'gate': 'student_above_base', 'warmup_iter': 20}},
    'total_iter': 120,
}
OPENED = 100


@pytest.fixture
def run_folder(tmp_path, make_pairs, tiny_options, write_yaml):
    """``run_folder(name, train, gated, batch)``: a folder with data and the options of a run; both are returned."""

    def make(name, train, batch=4):
        folder = tmp_path / name
        make_pairs(folder / 'train', count=5)
        make_pairs(folder / 'val', count=2, seed=1)
        options = tiny_options(folder, {'train': {'ema_decay': 0.9, 'ema_warmup': True, **train}})
        if train is GATED:
            options['network_g'] = NETWORK
        options['datasets']['train']['batch_size_per_gpu'] = batch
        options['logger'] |= {'save_checkpoint_freq': 1, 'keep_states': 200}
        options['val'] |= {'val_freq': 100}
        return folder, write_yaml(folder / 'tiny.yml', options)

    return make


def experiment(folder):
    return folder / 'experiments' / 'tiny'


def model_of(folder, iteration):
    return torch.load(experiment(folder) / 'training_states' / f'{iteration}.state', weights_only=True)['model']


def logged(folder, name):
    """A value by iteration."""
    lines = (experiment(folder) / 'train_tiny.log').read_text().splitlines()
    found = [re.search(rf'iter (\d+)/.* {name}: ([\d.]+)', line) for line in lines]
    return {int(match[1]): float(match[2]) for match in found if match}


@pytest.mark.parametrize(
    ('train', 'moments'), [(COMING_AND_GOING, [3, 10, 13]), (LATE, [4, 8]), (GATED, [OPENED - 30, OPENED + 10])]
)
def test_killed_and_resumed_run_has_the_bits_of_the_whole(run_folder, run_command, same, train, moments):
    last = train['total_iter']
    whole, opt = run_folder('whole', train)
    assert run_command('train', '-opt', opt).code == 0
    folder, opt = run_folder('killed', train)
    for moment in moments:
        temporary = str(experiment(folder) / 'training_states' / f'.{moment}.state.tmp')
        accident = {'before': 'os.replace', 'path': temporary}
        assert run_command('train', '-opt', opt, '--auto_resume', accident=accident).code == -signal.SIGKILL
    ended = run_command('train', '-opt', opt, '--auto_resume')
    assert ended.code == 0 and f'iterations {moments[-1] - 1} to {last}' in ended.out, ended.err
    same(model_of(folder, last), model_of(whole, last))


def in_one_and_two(run_folder, run_command, train):
    """Folders of the same run in one process and in two."""
    one, opt = run_folder('one', train)
    assert run_command('train', '-opt', opt).code == 0
    two, opt = run_folder('two', train, batch=2)
    ended = run_command('train', '-opt', opt, processes=2)
    assert [process.code for process in ended] == [0, 0], ended
    return one, two


@pytest.mark.parametrize('train', [COMING_AND_GOING, LATE], ids=['coming and going', 'late'])
def test_two_processes_train_as_one_does(run_folder, run_command, train):
    one, two = in_one_and_two(run_folder, run_command, train)
    for name in ('factor_L_CS', 'L_SR', 'L_ASR', 'L_CS', 'L_total'):
        ours, theirs = logged(two, name), logged(one, name)
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3), name
    ours, theirs = (model_of(folder, train['total_iter'])['net_g'] for folder in (two, one))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5, msg=name)


def test_gate_of_two_processes_is_that_of_one(run_folder, run_command):
    one, two = in_one_and_two(run_folder, run_command, GATED)
    assert logged(two, 'factor_L_CS') == logged(one, 'factor_L_CS')
    ours, theirs = (model_of(folder, 20)['gate'] for folder in (two, one))
    assert float(theirs['gain']) != 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gate_opens_in_a_run_and_is_told(run_folder, run_command):
    folder, opt = run_folder('run', GATED)
    ended = run_command('train', '-opt', opt)
    assert ended.code == 0, ended.err
    assert f'0.5 dB above the nearest image at iteration {OPENED}: gate student_above_base opens' in ended.out
    factors = logged(folder, 'factor_L_CS')
    assert [factors[OPENED + ahead] for ahead in (-1, 0, 1, 10, 20)] == [0, 0, 0.05, 0.5, 1]
    assert min(logged(folder, 'L_CS')) == OPENED + 1


def test_debug_run_has_the_whole_schedule_in_its_8_iterations(run_folder, run_command):
    fall = {'schedule': {'start_iter': 100, 'warmup_iter': 100, 'anneal_start': 300, 'anneal_end': 600}}
    folder, opt = run_folder('run', {'total_iter': 800, 'contrastive_opt': fall})
    ended = run_command('train', '-opt', opt, '--debug')
    assert ended.code == 0, ended.err
    factors = re.findall(r'factor_L_CS: ([\d.]+)', ended.out)
    assert [float(factor) for factor in factors] == pytest.approx([0, 1, 1, 2 / 3, 1 / 3, 0, 0, 0], abs=1e-4)
