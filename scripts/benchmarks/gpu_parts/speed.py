"""E: seconds of a training step, beside BasicSR's; what of them is L_CS's; and the kernels that take the longest."""

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from contrastive_loss import METHODS as LOSSES
from contrastive_loss import OURS, make_images
from measuring import seconds
from operators import batch_of
from training_steps import method_options

from basicsr_clsd.engine.build import build_model
from basicsr_clsd.runtime import cudnn
from gpu_parts.rows import Check, Row, at_most, attempt, run_on_gpu, skipped, told

TRAIN_STEP = Path(__file__).resolve().parents[1] / 'train_step.py'
FAST = 'bf16+channels_last'
QUICK = ((('EDSR', 'DS', 'CLSD'), ('tf32', FAST)),)  # methods, each in these settings
WHOLE = (
    (('EDSR', 'DS', 'CLSD'), ('fp32', 'tf32', FAST)),
    (('FAKD',), ('tf32', FAST)),
    (('CLSD',), (f'{FAST}+compile',)),
)
# Whether cuDNN is deterministic and tries kernels out; a training has the first.
CHOICES = {
    'deterministic': (True, False),
    'not deterministic': (False, False),
    'not deterministic, cudnn_benchmark': (False, True),
}
LOSS_COUNTS = (16, 32, 64)
REPEATS, STEPS, MOST = 5, 5, 8


def rows(check: Check) -> Iterator[Row]:
    """All figures."""
    step: dict[str, float] = {}
    if check.on_gpu:
        for methods, settings in QUICK if check.quick else WHOLE:
            name = f'seconds of a step: {", ".join(methods)}'
            yield from attempt(name, lambda ms=methods, ss=settings: steps(ms, ss, check, step))
    else:
        yield skipped('seconds of a step', 'train_step.py times a CPU')
    counts = LOSS_COUNTS if check.on_gpu else (4,)
    yield from attempt('L_CS alone', lambda: loss_alone(check, counts, step.get('CLSD, tf32')))
    yield from attempt('deterministic', lambda: choices(check))
    if check.on_gpu:
        yield from attempt('kernels', lambda: longest_kernels(check))
    else:
        yield skipped('kernels', 'there is no GPU that runs them')


def steps(methods: Sequence[str], settings: Sequence[str], check: Check, found: dict[str, float]) -> Iterator[Row]:
    """Run the benchmark of the training step; fills ``found`` with medians."""
    file = check.folder / 'step.json'
    arguments = ['--device', check.device, '--repeats', '3' if check.quick else str(REPEATS), '--json', str(file)]
    arguments += ['--methods', *methods, '--settings', *settings]
    done = subprocess.run([sys.executable, str(TRAIN_STEP), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    cases = {f'{case["method"]}, {case["setting"]}': case for case in json.loads(file.read_text())['cases']}
    for name, case in cases.items():
        if name not in found:
            yield told(f'{name}: iterations per second', 1 / case['median'])
            if case['peak_bytes'] is not None:
                yield told(f'{name}: GiB', case['peak_bytes'] / 2**30)
        found[name] = case['median']
    if 'DS' in methods:
        yield at_most('EDSR / BasicSR, tf32: seconds', ratio(cases['EDSR, tf32'], cases['BasicSR, tf32']), 1.0)
        for setting in settings:
            both = cases[f'CLSD, {setting}'], cases[f'DS, {setting}']
            yield at_most(f'CLSD / DS, {setting}: seconds', ratio(*both), 1.1)


def ratio(case: dict[str, Any], other: dict[str, Any]) -> float:
    """The ratio of two cases' seconds, each beside BasicSR's of the same repeat."""
    mine, its = ([a / b for a, b in zip(c['seconds'], c['baseline'], strict=True)] for c in (case, other))
    return statistics.median(a / b for a, b in zip(mine, its, strict=False))  # BasicSR itself has more turns


def loss_alone(check: Check, counts: tuple[int, ...], step: float | None) -> Iterator[Row]:
    """L_CS forward and backward; that of 16 images against CLSD's step."""
    for count in counts:
        images, heads = make_images(count, 3, 192 if check.on_gpu else 12, check.device)

        def once(images=images, heads=heads) -> None:
            LOSSES[OURS](images, heads).backward()

        once()
        taken = statistics.median(seconds(once, images.device) for _ in range(REPEATS))
        yield told(f'L_CS alone, {count} images: ms', 1000 * taken)
        if step is not None and count == LOSS_COUNTS[0]:
            yield at_most(f'L_CS alone, {count} images: share of the step', taken / step, 0.05)


def clsd_steps(check: Check) -> Callable[[], None]:
    """Some steps of CLSD in `tf32`, in the size that is shipped."""
    cudnn.set_up(tf32=True, deterministic=True, benchmark=False)
    model = build_model(method_options('CLSD', 'tf32', check.settings(LOSS_COUNTS[0]), check.size))
    batch = batch_of(model)
    if check.on_gpu:
        batch = {name: images.pin_memory() for name, images in batch.items()}

    def work() -> None:
        for iteration in range(1, STEPS + 1):
            model.feed_data(batch)
            model.optimize_parameters(iteration)

    return work


def choices(check: Check) -> Iterator[Row]:
    """What it costs that a training gives the same bits each time; the choices take turns."""
    work = clsd_steps(check)
    times: dict[str, list[float]] = {name: [] for name in CHOICES}
    for _ in range(1 + REPEATS):
        for name, (deterministic, benchmark) in CHOICES.items():
            cudnn.set_up(tf32=True, deterministic=deterministic, benchmark=benchmark)
            times[name].append(seconds(work, torch.device(check.device)))
    first, *others = CHOICES
    for name in others:
        turns = zip(times[name][1:], times[first][1:], strict=True)  # in the first, kernels are tried out
        yield told(f'CLSD, tf32, {name}: x the seconds', statistics.median(a / b for a, b in turns))


def longest_kernels(check: Check) -> Iterator[Row]:
    """The share of the time in which the GPU computes, and the kernels of CLSD's step that take the longest."""
    work = clsd_steps(check)
    work()
    taken = statistics.median(
        seconds(work, torch.device(check.device)) for _ in range(REPEATS)
    )  # not slowed by the profiler
    yield from shares(run_on_gpu(work), taken)


def shares(kernels: Sequence[tuple[str, float]], taken: float) -> Iterator[Row]:
    """What the GPU did in the seconds that some steps took, by the names and the seconds of kernels."""
    times: defaultdict[str, float] = defaultdict(float)
    for name, its in kernels:
        times[name] += its
    total = sum(times.values())
    yield told('CLSD, tf32: share of the time in which the GPU computes', total / taken)
    for name in sorted(times, key=lambda name: -times[name])[:MOST]:
        yield told(f'CLSD, tf32: share of {name[:60]}', times[name] / total)
