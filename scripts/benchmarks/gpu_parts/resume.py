"""C: a training that is stopped and resumed ends with the bits of one that is not."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

from basicsr_clsd.errors import SIGNALLED
from gpu_parts.rows import Check, Row, attempt, exactly, told
from gpu_parts.training import command, last_state, run, train_rows, write_photos

ITERATIONS = 300
PRECISIONS = {
    'fp32': ['train:precision=fp32'],
    'bf16+channels_last': ['train:precision=bf16', 'train:channels_last=true'],
}


def rows(check: Check) -> Iterator[Row]:
    """One comparison in each precision."""
    photos = write_photos(check)
    for setting in PRECISIONS if check.on_gpu else ('fp32',):
        yield from attempt(f'{setting}: resumed', lambda setting=setting: resumed(setting, photos, check))


def resumed(setting: str, photos: Path, check: Check) -> Iterator[Row]:
    """A training, and one of the same options that is sent SIGTERM and resumed."""
    changes = ['logger:print_freq=1', f'train:total_iter={ITERATIONS}', 'datasets:train:num_worker_per_gpu=2']
    whole, stopped = (f'{setting}_{name}' for name in ('whole', 'stopped'))
    first, second = (command(check, photos, n, 'CLSD', [*changes, *PRECISIONS[setting]]) for n in (whole, stopped))
    run(first, check)
    code = run(second, check, stop=lambda: bool(train_rows(stopped, check)))
    yield exactly(f'{setting}: exit code after SIGTERM', code, SIGNALLED + 15)
    yield told(f'{setting}: iteration of SIGTERM', last_state(stopped, check)['iter'])
    run(['--auto_resume', *second], check)
    yield exactly(f'{setting}: tensors of the state that differ', differing(whole, stopped, check), 0)


def differing(one: str, other: str, check: Check) -> int:
    """How many values of the last states of two trainings differ."""
    states: Sequence[list[object]] = [tree_leaves(last_state(name, check)['model']) for name in (one, other)]
    return sum(
        not torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a != b
        for a, b in zip(*states, strict=True)
    )
