"""Tiny trainings of several processes: their options, and what they leave behind."""

from pathlib import Path

import torch
from helpers.records import rows

REPO = Path(__file__).resolve().parents[2]
ITERATIONS = 20
BATCH = 6


def options(batch, **train):
    return {
        'datasets': {'train': {'batch_size_per_gpu': batch}},
        'train': {'total_iter': ITERATIONS, **train},
        'val': {'val_freq': 10, 'heads': True},
        'logger': {'save_checkpoint_freq': 10, 'keep_states': 9},
    }


def states(folder):
    return folder / 'experiments' / 'tiny' / 'training_states'


def leaves(value, name=''):
    """All values of nested containers, by their place."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {name: value}
    return {place: leaf for key, part in parts for place, leaf in leaves(part, f'{name}/{key}').items()}


def state(folder, iteration=ITERATIONS):
    return leaves(torch.load(states(folder) / f'{iteration}.state', weights_only=True))


def weights(folder, iteration=ITERATIONS):
    return {name: value for name, value in state(folder, iteration).items() if name.startswith('/model/net_g/')}


def metrics(folder):
    return rows(folder / 'experiments' / 'tiny', 'validation')


def log(folder):
    return (folder / 'experiments' / 'tiny' / 'train_tiny.log').read_text()


def assert_all_ended_well(ended):
    assert [process.code for process in ended] == [0] * len(ended), ended


def assert_near(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=0, atol=tolerance), name


def assert_same_state(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if not name.startswith('/options/'):
            same = torch.equal(value, theirs[name]) if torch.is_tensor(value) else value == theirs[name]
            assert same, name


def only_error(ended):
    """The one line that all processes together have on standard error."""
    (line,) = ''.join(process.err for process in ended).splitlines()
    return line
