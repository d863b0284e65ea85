"""Time and memory of the spatial affinity loss against its direct form, forward and backward.

    python benchmarks/affinity_loss.py --repeats 9 --threads 2 --sizes 24 48 96 --json affinity.json

One tap: features of a student and of a teacher at an LR patch of the given side. The direct form makes both affinities,
(N, HW, HW) each, and lets autograd do the rest. The two take turns within each repeat, so that whatever else the
machine does falls on both; the ratio is the median of those within a repeat. Peak memory is that of one forward and
backward beyond what was there before: on a CPU the growth of the resident size of a fresh process that has already run
the method on tiny features, on CUDA that of allocated memory. A method that needs more than `--limit` GiB is told so,
and neither runs into the machine's end nor is timed. The differences are to the direct form in fp64, on two images: of
the loss, of 99% of the gradient's entries, and of all of them. Where A_S and A_T are equal to fp32's last bits, the
sign of their difference, and with it the gradient of two columns, is decided by rounding, in both methods.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import seconds
from torch import Tensor

from basicsr_clsd.losses.spatial_affinity_loss import affinity_distance
from basicsr_clsd.runtime.memory import process_peak

EPS = 1e-8
OURS, DIRECT = 'in blocks', 'direct'
COMPARED = 2  # images that are compared in fp64
MOST = 0.99
TINY, MIDDLE, LARGE = 4, 48, 96  # sides of the LR patch
SETTLED = 2**16  # bytes that a first run may leave behind
Method = Callable[[Tensor, Tensor], Tensor]


def affinity(feature: Tensor) -> Tensor:
    """Return the affinity of each image's positions, (N, HW, HW)."""
    columns = feature.flatten(2)
    columns = columns / (torch.linalg.vector_norm(columns, dim=1, keepdim=True) + EPS)
    return columns.mT @ columns


def direct(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of |A_S - A_T|, as its formula says."""
    with torch.no_grad():
        target = affinity(teacher)
    return (affinity(student) - target).abs().mean()


METHODS: dict[str, Method] = {OURS: affinity_distance, DIRECT: direct}


def make_features(side: int, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return the features of a student, with gradient, and of a teacher."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(args.batch, channels, side, side, generator=generator).to(args.device) for channels in args.channels
    )
    return student.requires_grad_(), teacher


def run(method: Method, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward: the loss and its gradient."""
    loss = method(student, teacher)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


def peak_bytes(name: str, side: int, args: argparse.Namespace) -> int | None:
    """Return the peak memory of one forward and backward, beyond that before it; None: more than the limit."""
    if args.device == 'cpu':
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
            return process.submit(resident_growth, name, side, args).result()
    features = make_features(side, args)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (before + args.limit * 2**30) / total))
    torch.cuda.reset_peak_memory_stats()
    try:
        run(METHODS[name], *features)
        return torch.cuda.max_memory_allocated() - before
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def resident_growth(name: str, side: int, args: argparse.Namespace) -> int | None:
    """Return by how many bytes a method raises the peak resident size of this, a fresh process."""
    torch.set_num_threads(args.threads)
    run(METHODS[name], *make_features(TINY, args))
    features = make_features(side, args)
    status = Path('/proc/self/status').read_text()
    virtual = 1024 * int(next(line for line in status.splitlines() if line.startswith('VmSize')).split()[1])
    before = process_peak()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + int(args.limit * 2**30), resource.RLIM_INFINITY))
    try:
        run(METHODS[name], *features)
    except (RuntimeError, MemoryError):
        return None
    return process_peak() - before


def differences(method: Method, student: Tensor, teacher: Tensor) -> dict[str, float]:
    """Return the differences to the direct form in fp64, image by image for the memory.

    They are relative: of the loss, and of the gradient's entries, against the largest one, all and the nearest 99%.
    """
    losses, entries = [], []
    for image in range(min(COMPARED, len(student))):
        mine, its = student.detach()[image, None], teacher[image, None]
        loss, gradient = run(method, mine.requires_grad_(), its)
        expected, expected_gradient = run(direct, mine.detach().double().requires_grad_(), its.double())
        losses.append((loss - expected).abs().item() / expected.item())
        entries.append((gradient - expected_gradient).abs().flatten() / expected_gradient.abs().max())
    ordered = torch.cat(entries).sort().values
    return {
        'loss_difference': max(losses),
        'gradient_difference': ordered[int(MOST * len(ordered))].item(),
        'largest_gradient_difference': ordered[-1].item(),
    }


def compare(side: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the methods for one side of the LR patch."""
    peaks = {name: peak_bytes(name, side, args) for name in METHODS}
    fitting = {name: method for name, method in METHODS.items() if peaks[name] is not None}
    student, teacher = make_features(side, args)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for repeat in range(args.repeats + 1):
        for name, method in fitting.items():
            value = seconds(partial(run, method, student, teacher), student.device)
            times[name] += [value] if repeat else []  # the first warms up
    rows = []
    for name, method in METHODS.items():
        ratios = [mine / its for mine, its in zip(times[name], times[DIRECT], strict=False)]
        rows.append(
            {
                'side': side,
                'method': name,
                'seconds': times[name],
                'median': statistics.median(times[name]) if times[name] else None,
                'x_direct': statistics.median(ratios) if ratios else None,
                'peak_bytes': peaks[name],
                **differences(method, student, teacher),
            }
        )
    return rows


def find_bars(rows: list[dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Hold the rows against the bars that the project has set itself, as far as they were measured."""
    found = {(row['side'], row['method']): row for row in rows}
    bars: list[tuple[str, str, float, float]] = []
    for side in args.sizes:
        ours, plain = found[side, OURS], found[side, DIRECT]
        if ours['peak_bytes'] is None:
            continue
        bars += [(f'LR {side}: difference of the loss', '1e-5', ours['loss_difference'], 1e-5)]
        bars += [(f'LR {side}: difference of the gradient', '1e-5', ours['gradient_difference'], 1e-5)]
        if ours['x_direct'] is not None:
            bars += [(f'LR {side}: time / direct', '1.2', ours['x_direct'], 1.2)]
        if side == MIDDLE and plain['peak_bytes'] is not None:
            ratio = max(ours['peak_bytes'], SETTLED) / plain['peak_bytes']
            bars += [(f'LR {side}: peak memory / direct', '1/8', ratio, 1 / 8)]
        if side == LARGE and plain['peak_bytes'] is None:
            bars += [(f'LR {side}: GiB, where the direct form needs more', '4', ours['peak_bytes'] / 2**30, 4.0)]
    return [{'bar': name, 'limit': f'at most {limit}', 'measured': x, 'met': x <= top} for name, limit, x, top in bars]


def print_report(report: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the table and the bars as Markdown."""
    print(
        f'torch {report["torch"]}, {args.device}, {args.threads} threads, batch {args.batch}: `{report["command"]}`\n'
    )
    print('| LR | method | median s | x direct | peak MiB | loss diff | gradient diff, 99% | all |')
    print('| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |')
    for row in report['rows']:
        fits = row['peak_bytes'] is not None
        median = f'{row["median"]:.4f}' if fits else ''
        against = f'{row["x_direct"]:.3f}' if row['x_direct'] is not None else ''
        peak = f'{row["peak_bytes"] / 2**20:,.1f}' if fits else f'over {1024 * args.limit:,.0f}'
        keys = ('loss_difference', 'gradient_difference', 'largest_gradient_difference')
        apart = ' | '.join(f'{row[key]:.1e}' for key in keys)
        print(f'| {row["side"]} | {row["method"]} | {median} | {against} | {peak} | {apart} |')
    print('\n| bar | limit | measured | |\n| --- | ---: | ---: | --- |')
    for bar in report['bars']:
        print(f'| {bar["bar"]} | {bar["limit"]} | {bar["measured"]:.3g} | {"met" if bar["met"] else "not met"} |')


def main() -> None:
    """Measure every size, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description='Time and memory of the spatial affinity loss, forward and backward.')
    parser.add_argument('--repeats', type=int, default=9, help='timed runs of each method')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="torch's threads on the CPU")
    parser.add_argument('--sizes', type=int, nargs='+', default=[24, 48, 96], help='sides of the LR patch in pixels')
    parser.add_argument('--batch', type=int, default=16, help='images in the batch')
    parser.add_argument('--channels', type=int, nargs=2, default=[64, 256], help='of the student and of the teacher')
    parser.add_argument('--limit', type=float, default=4, help='GiB that a method may take')
    parser.add_argument('--json', type=Path, help='write every number to this file')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rows = [row for side in args.sizes for row in compare(side, args)]
    report = {
        'torch': torch.__version__,
        'command': ' '.join(['python', *sys.argv]),
        'options': vars(args),
        'rows': rows,
        'bars': find_bars(rows, args),
    }
    print_report(report, args)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2, default=str) + '\n')


if __name__ == '__main__':
    main()
