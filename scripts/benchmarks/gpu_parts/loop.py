"""F: the training loop waits for no data. H: validation takes a small part of a training."""

import time
from collections.abc import Iterator
from pathlib import Path

from basicsr_clsd.config import Options
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.engine.validation import Validator
from basicsr_clsd.runtime.distributed import Processes
from gpu_parts.numerics import build
from gpu_parts.rows import Check, Row, at_most, attempt, told
from gpu_parts.training import command, run, train_rows, write_photos

JUDGED = 4  # workers, the options' default
VAL_FREQ = 5000


def loader_rows(check: Check) -> Iterator[Row]:
    """Iterations per second and the share of waiting, by the number of workers."""
    photos = write_photos(check)
    for workers in (1, 2, 4, 8) if check.on_gpu and not check.quick else (JUDGED,) if check.on_gpu else (1,):
        yield from attempt(f'{workers} workers', lambda workers=workers: waiting(workers, photos, check))


def waiting(workers: int, photos: Path, check: Check) -> Iterator[Row]:
    """Train EDSR from raw pixels."""
    every = 200 if check.on_gpu else 10
    changes = [f'datasets:train:num_worker_per_gpu={workers}', f'train:total_iter={3 * every}']
    changes += [f'logger:print_freq={every}', 'train:precision=auto', 'train:channels_last=true']
    run(command(check, photos, f'workers_{workers}', 'EDSR', changes), check)
    row = train_rows(f'workers_{workers}', check)[-1]
    yield told(f'{workers} workers: iterations per second', row.it_per_s)
    name = f'{workers} workers: share of waiting for data'
    yield at_most(name, row.data_wait, 0.03) if check.on_gpu and workers == JUDGED else told(name, row.data_wait)


def validation_rows(check: Check) -> Iterator[Row]:
    """Seconds of a validation of 8 photos, against those of the steps between two of them."""
    photos = write_photos(check)
    every = 100 if check.on_gpu else 10
    run(command(check, photos, 'steps', 'EDSR', [f'train:total_iter={3 * every}', f'logger:print_freq={every}']), check)
    model = build('EDSR', 'tf32' if check.on_gpu else 'fp32', check.device, check)
    section = {
        'phase': 'val',
        'scale': 4,
        'dataroot_gt': f'{photos}/HR',
        'dataroot_lq': f'{photos}/LR',
        'filename_tmpl': '{}x4',
    }
    options: Options = model.options
    validator = Validator(options, {'photos': PairedDataset(section)}, Processes(), check.folder)
    validator.run(model, 0)
    start = time.perf_counter()
    validator.run(model, 0)
    taken = time.perf_counter() - start
    yield told('validation of 8 photos: seconds', taken)
    share = taken * train_rows('steps', check)[-1].it_per_s / VAL_FREQ
    name = f'validation of 8 photos: share of {VAL_FREQ:,} steps'
    yield at_most(name, share, 0.05) if check.on_gpu else told(name, share)
