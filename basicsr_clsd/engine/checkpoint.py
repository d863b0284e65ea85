"""Training states: one file that holds everything, the newest readable one, no more than are wanted."""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.weights import read_file
from basicsr_clsd.runtime.files import save

VERSION = 2
KEYS = frozenset({'version', 'iter', 'model', 'random', 'best', 'options', 'world'})


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
    if not isinstance(state, dict) or state.keys() != KEYS:
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
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what :func:`random_state` returned."""
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'])
    if state['cuda'] and len(state['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['cuda'])


def seed_everything(seed: int) -> None:
    """Seed every random generator of the process."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.manual_seed(seed)
