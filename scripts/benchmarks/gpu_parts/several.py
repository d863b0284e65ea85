"""I: two processes train as one, an error of one ends both, and what a second GPU gains."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from gpu_parts.numerics import GRADIENT_BAR
from gpu_parts.rows import Check, Row, at_most, attempt, exactly, skipped, told
from gpu_parts.training import TRAIN, command, last_state, log_file, run, train_rows, write_photos

LAUNCHER = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2')
FAULTY = Path(__file__).with_name('faulty_train.py')
LIMIT_S = 60


def rows(check: Check) -> Iterator[Row]:
    """All of these, where there are two GPUs; asked for by `--gpus 2`, on two processes of a CPU."""
    if check.gpus < 2:  # noqa: PLR2004  (the point of this part)
        yield skipped('two processes', f'{check.gpus} GPU: nccl needs one for each process')
        return
    photos = write_photos(check)
    yield from attempt('two processes', lambda: compare(photos, check))
    yield from attempt('an error of one', lambda: fault(photos, check))


def compare(photos: Path, check: Check) -> Iterator[Row]:
    """The same global batch in one process and in two: gradients of the first iteration, losses, and seconds."""
    one, two = (gradients(count, photos, check) for count in (1, 2))
    difference = math.hypot(*(float((a - b).norm()) for a, b in zip(one, two, strict=True)))
    yield at_most('two processes: gradients', difference / math.hypot(*(float(a.norm()) for a in one)), GRADIENT_BAR)
    every = 100 if check.on_gpu else 1
    changes = [f'train:total_iter={3 * every}', f'logger:print_freq={every}']
    speed, losses = {}, {}
    for count in (1, 2):
        found = train_rows(train(f'processes_{count}', count, photos, check, changes), check)
        losses[count], speed[count] = found[0].values['L_total'], found[-1].it_per_s
    yield at_most('two processes: mean loss against one', abs(losses[2] - losses[1]) / losses[1], 1e-3)
    yield told('two processes: x the iterations per second of one', speed[2] / speed[1])


def train(name: str, count: int, photos: Path, check: Check, changes: list[str]) -> str:
    """Train CLSD on 16 images in one or two processes; return the name."""
    changes = [*changes, f'datasets:train:batch_size_per_gpu={16 // count}', 'train:precision=fp32', 'train:tf32=false']
    arguments = command(replace(check, gpus=count), photos, name, 'CLSD', changes)
    run(arguments, check, launcher=[*LAUNCHER, str(TRAIN)] if count > 1 else ())
    return name


def gradients(count: int, photos: Path, check: Check) -> list[torch.Tensor]:
    """A tenth of the gradients of the first iteration: Adam's first moments after it."""
    name = train(f'gradients_{count}', count, photos, check, ['train:total_iter=1'])
    moments = last_state(name, check)['model']['optimizer']['state']
    return [moments[number]['exp_avg'].double() for number in sorted(moments)]


def fault(photos: Path, check: Check) -> Iterator[Row]:
    """An error in the backward of rank 1."""
    arguments = command(replace(check, gpus=2), photos, 'fault', 'CLSD')
    start = time.monotonic()
    try:
        run(arguments, check, launcher=[*LAUNCHER, str(FAULTY)])
        code = 0
    except RuntimeError:
        code = 1
    yield exactly('an error of one: exit code', code, 1)
    yield exactly('an error of one: its message', 'division by zero' in log_file(check).read_text(), True)
    yield at_most('an error of one: seconds until all have ended', time.monotonic() - start, LIMIT_S)
