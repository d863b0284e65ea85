"""A: no step waits for the GPU, and it copies two images there; how many kernels it launches."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from operators import CASES, batch_of, build, write_teachers

from gpu_parts.rows import Check, Row, attempt, exactly, run_on_gpu, skipped, synchronize, told

QUICK = ('EDSR', 'CLSD', 'CLSD on SRVGG', 'FAKD')
ON_CPU = ('EDSR', 'CLSD')


def rows(check: Check) -> Iterator[Row]:
    """Two steps of every method and network."""
    write_teachers(check.folder)
    for case in QUICK if check.on_gpu and check.quick else CASES if check.on_gpu else ON_CPU:
        yield from attempt(case, lambda case=case: steps(case, check))


def steps(case: str, check: Check) -> Iterator[Row]:
    """A case: one step to set up, two that must not wait, one that is counted."""
    model = build(case, check.folder, [f'num_gpu={int(check.on_gpu)}', *check.size])
    batch = batch_of(model)
    if check.on_gpu:
        batch = {name: images.pin_memory() for name, images in batch.items()}
    numbers = iter(range(1, 9))

    def step() -> None:
        number = next(numbers)
        model.update_learning_rate(number)
        model.feed_data(batch)
        model.optimize_parameters(number)

    step()
    synchronize(check)
    with refused_waits() if check.on_gpu else nullcontext():
        step()
        step()
    yield exactly(f'{case}: the last step was done', float(model.log_dict['done']), 1)
    if not check.on_gpu:
        yield skipped(f'{case}: waits, copies, kernels', 'there is no GPU to wait for')
        return
    names = [name for name, _ in run_on_gpu(step)]
    yield exactly(f'{case}: copies to the GPU', sum('HtoD' in name for name in names), 2)
    yield told(f'{case}: kernels', sum(not name.startswith(('Memcpy', 'Memset')) for name in names))


@contextmanager
def refused_waits() -> Iterator[None]:
    """Let waiting for the GPU be an error."""
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')
