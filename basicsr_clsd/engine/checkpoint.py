"""Training states: one file that holds everything, and what may change between a run and its continuation."""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from basicsr_clsd.config import Options
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.weights import read_file
from basicsr_clsd.runtime.files import save

VERSION = 2
KEYS = frozenset({'version', 'iter', 'model', 'random', 'best', 'options', 'world', 'meters'})
# Sections and keys that decide which numbers a run computes; all else (paths, logging, workers) may change freely.
GLOBAL_BATCH = 'global batch (datasets.train.batch_size_per_gpu x processes x train.accum_iter)'
MATHEMATICS = (
    'model_type',
    'scale',
    'manual_seed',
    'network_g',
    'network_teacher',
    'train',
    'datasets.train',
    GLOBAL_BATCH,
)
FREE = (
    'train.total_iter',
    'train.tf32',
    'train.deterministic',
    'train.cudnn_benchmark',
    'train.max_skipped_steps',
    'train.accum_iter',
    'datasets.train.name',
    'datasets.train.dataroot_gt',
    'datasets.train.dataroot_lq',
    'datasets.train.lq_cache',
    'datasets.train.io_backend',
    'datasets.train.batch_size_per_gpu',
    'datasets.train.num_worker_per_gpu',
    'datasets.train.cache_images',
    'datasets.train.pin_memory',
)


class States:
    """The training states of a run, ``training_states/ITERATION.state``.

    Args:
        folder: Where they are.
        keep: How many are kept; older ones are deleted after a newer one has been written.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def all(self) -> list[Path]:
        """Paths of all states, newest first."""
        found = [path for path in self.folder.glob('*.state') if path.stem.isdigit()]
        return sorted(found, key=lambda path: int(path.stem), reverse=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state of iteration ``state['iter']``, then delete what is too many."""
        save(dict(state), self.folder / f'{state["iter"]}.state')
        for path in self.all()[self.keep :]:
            path.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """Load the newest readable state; unreadable ones are named in the log and skipped. None: there are none.

        Raises:
            UserError: There are states, but none can be read.
        """
        for path in self.all():
            try:
                return read_state(path)
            except UserError as error:
                logging.getLogger('basicsr').warning(f'{error}; skipped')
        if self.all():
            raise UserError(f'{self.folder}: none of the states can be read; move the folder away to start anew')
        return None


def read_state(path: Path) -> dict[str, Any]:
    """Load a training state, or raise a :class:`UserError` that names the file and what it is."""
    state = read_file(path)
    if not isinstance(state, dict) or state.keys() | {'meters'} != KEYS:  # earlier versions saved no meters
        raise UserError(f'{path}: not a training state of this project')
    if state['version'] != VERSION:
        raise UserError(f'{path}: a training state of format {state["version"]}; this version reads {VERSION}')
    return state


def random_state() -> dict[str, Any]:
    """The state of every random generator of the process, as plain values and tensors."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (the generator that BasicSR uses)
    return {
        'python': random.getstate(),
        'numpy': (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        'torch': torch.get_rng_state(),
        # Of this process's GPU; of a training on a CPU none.
        'cuda': [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what :func:`random_state` returned."""
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'])
    if torch.cuda.is_initialized() and state['cuda']:
        # Earlier versions kept those of all visible GPUs, which may now be others.
        torch.cuda.set_rng_state(state['cuda'][min(torch.cuda.current_device(), len(state['cuda']) - 1)])
    elif torch.cuda.is_initialized():
        logging.getLogger('basicsr').warning('The state is of a CPU: what layers drop is drawn anew on the GPU')


def seed_everything(seed: int) -> None:
    """Seed every random generator of the process."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.manual_seed(seed)


def changed_options(before: Mapping[str, Any], options: Options, world_before: int, world: int) -> list[str]:
    """What has changed in the options of a run; refuses to go on with a change of its mathematics.

    Network, seed, augmentation, losses, optimizer, schedule, precision and the global batch must be what they were:
    their values are part of the state, or would make it another run. ``total_iter`` may grow, data may have moved, and
    a global batch may be split over processes and micro-batches in another way.

    Args:
        before: The options that the state was saved with.
        options: Those of now.
        world_before: Number of processes then.
        world: Number of processes now.

    Returns:
        One text for each key that has changed and may.

    Raises:
        UserError: Names every key that must not have changed, with both values.
    """
    try:
        earlier = Options.recorded(before)
    except ValidationError as error:
        raise UserError('the run to resume was made by another version, with options that no longer exist') from error
    old, new = _flat(earlier.model_dump(mode='json')), _flat(options.model_dump(mode='json'))
    old[GLOBAL_BATCH], new[GLOBAL_BATCH] = _global_batch(earlier, world_before), _global_batch(options, world)
    changed = {
        key: f'{key} was {old.get(key)!r}, is {new.get(key)!r}'
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    forbidden = [text for key, text in changed.items() if _within(key, MATHEMATICS) and not _within(key, FREE)]
    if forbidden:
        raise UserError(f'the run to resume had other options: {"; ".join(forbidden)}; give the new run another name')
    return list(changed.values())


def _global_batch(options: Options, world: int) -> int:
    assert options.train is not None
    return options.datasets['train'].batch_size_per_gpu * world * options.train.accum_iter


def _within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f'{section}.') for section in sections)


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f'{prefix}{key}.')
        elif value is not None:
            flat[f'{prefix}{key}'] = value
    return flat
