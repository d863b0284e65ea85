"""E: seconds of a training step, beside BasicSR's; what of them is L_CS's; and the kernels that take the longest."""

import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from contrastive_loss import METHODS as LOSSES
from contrastive_loss import OURS, make_images
from measuring import seconds
from operators import batch_of
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_parts.numerics import build
from gpu_parts.rows import Check, Row, at_most, attempt, skipped, told

TRAIN_STEP = Path(__file__).resolve().parents[1] / 'train_step.py'
METHODS, SETTINGS = ('EDSR', 'DS', 'CLSD', 'FAKD'), ('fp32', 'tf32', 'bf16+channels_last')
LOSS_COUNTS = (16, 32, 64)
MOST = 8


def rows(check: Check) -> Iterator[Row]:
    """All figures."""
    if not check.on_gpu:
        yield skipped('seconds of a step', 'train_step.py times a CPU')
        yield from attempt('L_CS alone', lambda: loss_alone(check, (4,), None))
        return
    step: dict[str, float] = {}
    yield from attempt('seconds of a step', lambda: steps(check, step))
    yield from attempt('L_CS alone', lambda: loss_alone(check, LOSS_COUNTS, step.get('CLSD, tf32')))
    yield from attempt('kernels', lambda: longest_kernels(check))


def steps(check: Check, found: dict[str, float]) -> Iterator[Row]:
    """Run the benchmark of the training step; fills ``found`` with medians."""
    file = check.folder / 'step.json'
    methods, settings = (METHODS[:3], SETTINGS[1:]) if check.quick else (METHODS, SETTINGS)
    arguments = ['--device', check.device, '--repeats', '3' if check.quick else '9', '--json', str(file)]
    arguments += ['--methods', *methods, '--settings', *settings]
    done = subprocess.run([sys.executable, str(TRAIN_STEP), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    cases = {f'{case["method"]}, {case["setting"]}': case for case in json.loads(file.read_text())['cases']}
    for name, case in cases.items():
        found[name] = case['median']
        yield told(f'{name}: iterations per second', 1 / case['median'])
        if case['peak_bytes'] is not None:
            yield told(f'{name}: GiB', case['peak_bytes'] / 2**30)
    pairs = [('EDSR', 'BasicSR', 'tf32', 1.0)] + [('CLSD', 'DS', setting, 1.1) for setting in settings]
    for one, other, setting, bar in pairs:
        turns = zip(cases[f'{one}, {setting}']['seconds'], cases[f'{other}, {setting}']['seconds'], strict=True)
        yield at_most(f'{one} / {other}, {setting}: seconds', statistics.median(a / b for a, b in turns), bar)


def loss_alone(check: Check, counts: tuple[int, ...], step: float | None) -> Iterator[Row]:
    """L_CS forward and backward; that of 16 images against CLSD's step."""
    for count in counts:
        images, heads = make_images(count, 3, 192 if check.on_gpu else 12, check.device)

        def once(images=images, heads=heads) -> None:
            LOSSES[OURS](images, heads).backward()

        once()
        taken = statistics.median(seconds(once, images.device) for _ in range(5))
        yield told(f'L_CS alone, {count} images: ms', 1000 * taken)
        if step is not None and count == LOSS_COUNTS[0]:
            yield at_most(f'L_CS alone, {count} images: share of the step', taken / step, 0.05)


def longest_kernels(check: Check) -> Iterator[Row]:
    """The share of the time in which the GPU computes, and the kernels of CLSD's step that take the longest."""
    model = build('CLSD', 'tf32', check.device, check)
    batch = {name: images.pin_memory() for name, images in batch_of(model).items()}

    def step(iteration: int) -> None:
        model.feed_data(batch)
        model.optimize_parameters(iteration)

    for iteration in range(1, 4):
        step(iteration)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        taken = seconds(lambda: [step(iteration) for iteration in range(4, 9)], model.device)
    times: Counter[str] = Counter()
    for event in found.events() or []:
        if event.device_type == DeviceType.CUDA:
            times[event.name] += event.device_time / 1e6
    yield told('CLSD, tf32: share of the time in which the GPU computes', times.total() / taken)
    for name, its in times.most_common(MOST):
        yield told(f'CLSD, tf32: share of {name[:60]}', its / times.total())
