"""Tiny trainings on one small set of images, and comparisons of what they leave behind."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.records import reproducible_rows

ODD = {
    'train': {'ema_decay': 0.5, 'scheduler': {'milestones': [4, 7]}, 'total_iter': 8},
    # Lower is better, so that the best validation is an early one, which a resumed run must remember.
    'val': {'val_freq': 2, 'heads': True, 'metrics': {'psnr': {'better': 'lower'}}},
    'logger': {'save_checkpoint_freq': 3},
}


class Run:
    """A training of its own folder; its options are tiny ones with odd sizes: 3 images, batch 2, 8 iterations."""

    def __init__(self, folder: Path, opt: Path, run_command: Callable[..., Any]) -> None:
        self.folder, self.opt, self._run_command = folder, opt, run_command
        self.root = folder / 'experiments' / 'tiny'
        self.models, self.states = self.root / 'models', self.root / 'training_states'

    def start(self, *arguments: str, fresh: bool = False, **accident: Any) -> Any:
        return self._run_command('train', '-opt', self.opt, *arguments, fresh=fresh, accident=accident)

    def resume(self, *arguments: str, fresh: bool = False, **accident: Any) -> Any:
        return self.start('--auto_resume', *arguments, fresh=fresh, **accident)

    def files(self) -> dict[str, bytes]:
        """Everything in the folders that runs write to, hidden files included."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob('*'))
            if path.is_file() and path != self.opt
        }

    def outcome(self) -> dict[str, Any]:
        """What a run is about: every checkpoint and metric, and the names of all files."""
        saved = {path.name: load(path) for path in (*self.models.iterdir(), *self.states.iterdir())}
        for path in self.states.iterdir():
            del saved[path.name]['options']  # paths and the number of loader processes may differ
        return {
            'saved': saved,
            'metrics': reproducible_rows(self.root),
            'names': {path.name for path in self.root.rglob('*')},
        }


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def assert_same(first: Any, second: Any, where: str = '') -> None:
    """Equal to the bit, tensors at any depth included."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), where
    elif isinstance(first, Mapping):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f'{where}/{key}')
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f'{where}/{index}')
    else:
        assert first == second, where


@pytest.fixture(scope='session')
def same() -> Callable[..., None]:
    """``same(first, second)``: asserts equality to the bit, of tensors at any depth."""
    return assert_same


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory, make_pairs: Callable[..., Any]) -> Path:
    """A folder with 3 pairs for training and 2 for validation."""
    folder = tmp_path_factory.mktemp('data')
    make_pairs(folder / 'train', count=3, height=40, width=36)
    make_pairs(folder / 'val', count=2, height=32, width=40, seed=1)
    return folder


@pytest.fixture(scope='session')
def make_run(
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_options: Callable[..., dict[str, Any]],
    write_yaml: Callable[..., Path],
    run_command: Callable[..., Any],
) -> Callable[..., Run]:
    """``make_run(changes={}, of=None)``: a run that has not been started, or a copy of another one and its files.

    A change replaces keys of the sections of the options, or a whole one if it has a ``type``.
    """

    def make(changes: Mapping[str, Any] | None = None, of: Run | None = None) -> Run:
        folder = tmp_path_factory.mktemp('run')
        options = tiny_options(data, ODD)
        options['path'] = {'experiments_root': str(folder / 'experiments'), 'tb_root': str(folder / 'tb_logger')}
        for key, value in (changes or {}).items():
            replaced = not isinstance(value, Mapping) or 'type' in value
            options[key] = value if replaced else {**options[key], **value}
        run = Run(folder, write_yaml(folder / 'tiny.yml', options), run_command)
        if of is not None:
            shutil.copytree(of.folder / 'experiments', folder / 'experiments')
        return run

    return make


@pytest.fixture(scope='session')
def reference(make_run: Callable[..., Run]) -> Run:
    """An uninterrupted run in an interpreter of its own; not to be changed."""
    run = make_run()
    ended = run.start(fresh=True)
    assert ended.code == 0, ended.err
    return run


@pytest.fixture
def copy_of_reference(make_run: Callable[..., Run], reference: Run) -> Run:
    return make_run(of=reference)


@pytest.fixture
def run_folder(tmp_path, make_pairs, tiny_options, write_yaml):
    """``run_folder(name, changes)``: a folder with data and the options of a run; returns it and the options file."""

    def make(name, changes):
        folder = tmp_path / name
        make_pairs(folder / 'train', count=7)
        make_pairs(folder / 'val', count=5, seed=1)
        return folder, write_yaml(folder / 'tiny.yml', tiny_options(folder, changes))

    return make
