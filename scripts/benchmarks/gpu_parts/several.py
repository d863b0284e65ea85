"""I: two processes train as one, an error of one ends both, and what a second GPU gains."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gpu_parts.rows import Check, Row, at_most, attempt, exactly, skipped, told
from gpu_parts.training import TRAIN, command, log_file, run, train_rows, write_photos

LAUNCHER = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2')
FAULTY = Path(__file__).with_name('faulty_train.py')
LIMIT_S = 60


def rows(check: Check) -> Iterator[Row]:
    """All three, where there are two GPUs; asked for by `--gpus 2`, on two processes of a CPU."""
    if check.gpus < 2:  # noqa: PLR2004  (the point of this part)
        yield skipped('two processes', f'{check.gpus} GPU: nccl needs one for each process')
        return
    photos = write_photos(check)
    yield from attempt('two processes', lambda: compare(photos, check))
    yield from attempt('an error of one', lambda: fault(photos, check))


def compare(photos: Path, check: Check) -> Iterator[Row]:
    """The same global batch in one process and in two: the loss of the first and of later iterations."""
    speed, losses = {}, {}
    for count in (1, 2):
        every = 100 if check.on_gpu else 1
        changes = [f'datasets:train:batch_size_per_gpu={16 // count}', f'train:total_iter={3 * every}']
        changes += [f'logger:print_freq={every}', 'train:precision=fp32', 'train:tf32=false']
        arguments = command(replace(check, gpus=count), photos, f'processes_{count}', 'CLSD', changes)
        run(arguments, check, launcher=[*LAUNCHER, str(TRAIN)] if count > 1 else ())
        found = train_rows(f'processes_{count}', check)
        losses[count], speed[count] = found[0].values['L_total'], found[-1].it_per_s
    yield at_most('two processes: mean loss against one', abs(losses[2] - losses[1]) / losses[1], 1e-3)
    yield told('two processes: x the iterations per second of one', speed[2] / speed[1])


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
