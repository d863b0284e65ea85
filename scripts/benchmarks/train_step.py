"""Seconds, memory and FLOP/s of a training step of each method, beside BasicSR's own SRModel doing EDSR's work.

    python benchmarks/train_step.py --threads 2 --repeats 9 --json step.json --data datasets/BSDS400

A step is `feed_data` and `optimize_parameters` on a random batch, with a method's shipped options and the overrides of
a setting: a precision and switches, as in `bf16+channels_last+compile`. On a CPU compiling needs a C++ compiler, and
bf16 takes several times as long as fp32 where the CPU has no instructions for it: leave it out by `--settings`.
The cases take turns within each repeat, in an order drawn anew each time, so that whatever else the machine does, and
what a case leaves in the caches, falls on all of them; ratios are medians, over the repeats, of those within a repeat.
- **Peak memory**: on CUDA the peak of allocated memory in a step, weights and optimizer state included; on a CPU that
  of the resident size of a fresh process, beyond what it has after steps of a tiny network (so it includes what the C
  library's allocator keeps, and the compiler's own).
- **FLOPs**: of convolutions and products, forward and backward, by `torch.utils.flop_counter`.
- **Share**: of the FLOP/s of a plain 3x3 convolution of 256 channels, forward and backward, in the same precision and
  the memory format that suits it better.
- **The paper's Table 6**: an iteration of each method against CLSD's, and the hours that its schedule would take on
  this machine, with those of the teacher (`EDSR_L`) where there is one. Here teachers have random weights.
- **Waiting for data** (`--data`): EDSR's step in the first setting, fed by the training engine's loader with one
  process; LR images are made in a temporary folder first.
The cuDNN flags and, on a CPU, the C library's allocator are set as the engine sets them; for BasicSR as its train.py
does, which leaves the allocator alone. TensorFloat-32, which torch lets BasicSR's convolutions use, is the setting
`tf32`.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import cpu_name
from paper_times import compare, print_table
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from training_steps import BASICSR, CONVOLUTION, METHODS, TINY, Step, build_step, method_options, write_teachers

from basicsr_clsd.engine.trainer import Trainer
from basicsr_clsd.runtime import cudnn
from basicsr_clsd.runtime.distributed import Processes
from basicsr_clsd.runtime.memory import keep_freed_memory, process_peak, reset_process_peak

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')
SWITCHES = ('', '+channels_last', '+compile', '+channels_last+compile')
SETTINGS = [precision + switches for precision in PRECISIONS for switches in SWITCHES]
WARM_UP = 2  # steps; the optimizer has its state after the first


@dataclass
class Case:
    """What is timed: a method, BasicSR or the plain convolution, in a setting."""

    method: str
    setting: str
    flops: int
    peak_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def precision(self) -> str:
        """The setting without its switches."""
        return self.setting.split('+')[0]


def set_flags(case: Case, args: argparse.Namespace) -> None:
    """Set the flags as the engine does; as BasicSR's train.py, which leaves cuDNN its choice, for all else."""
    ours = case.method in METHODS
    cudnn.set_up(tf32=case.precision == 'tf32', deterministic=ours, benchmark=not ours)
    keep_freed_memory(args.device == 'cpu' and case.method != BASICSR)


def synchronize(args: argparse.Namespace) -> None:
    """Wait for the GPU, if it is the device."""
    if args.device == 'cuda':
        torch.cuda.synchronize()


def time_step(case: Case, step: Step, args: argparse.Namespace) -> None:
    """Add the seconds of a step to those of the case."""
    set_flags(case, args)
    steps = 10 if args.device == 'cuda' else 1  # as in training, a GPU is not waited for after each step
    synchronize(args)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(args)
    case.seconds.append((time.perf_counter() - start) / steps)


def count_flops(step: Step) -> int:
    """Count the FLOPs of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def resident_growth(case: Case, args: argparse.Namespace) -> int:
    """Return by how many bytes a case's model and steps raise the peak resident size of this, a fresh process."""
    torch.set_num_threads(args.threads)
    set_flags(case, args)
    build_step(case.method, case.setting, args, TINY)()
    if 'compile' in case.setting:
        torch.compiler.reset()  # otherwise a second size is compiled for any size
    reset_process_peak()
    before = process_peak()
    step = build_step(case.method, case.setting, args)
    reset_process_peak()  # without what reading a teacher's weights took
    for _ in range(2 * WARM_UP):  # after fewer the allocator has not settled
        step()
    return process_peak() - before


def prepare(case: Case, args: argparse.Namespace) -> Step:
    """Build a case, warm it up and measure its memory."""
    if args.device == 'cpu' and case.method != CONVOLUTION:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
            case.peak_bytes = process.submit(resident_growth, case, args).result()
    others = torch.cuda.memory_allocated()  # 0 without CUDA
    set_flags(case, args)
    step = build_step(case.method, case.setting, args)
    for _ in range(WARM_UP):
        step()
    if args.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()  # without what cuDNN has tried
        step()
        case.peak_bytes = torch.cuda.max_memory_allocated() - others
    return step


def measure(args: argparse.Namespace) -> list[Case]:
    """Measure all cases."""
    precisions = dict.fromkeys(setting.split('+')[0] for setting in args.settings)
    names = [(BASICSR, 'fp32')] + [(BASICSR, 'tf32')] * (args.device == 'cuda')
    names += [(method, setting) for method in args.methods for setting in args.settings]
    names += [(CONVOLUTION, precision + rest) for precision in precisions for rest in ('', '+channels_last')]
    flops = {method: count_flops(build_step(method, 'fp32', args)) for method in dict(names)}
    cases = [Case(method, setting, flops[method]) for method, setting in names]
    steps = [prepare(case, args) for case in cases]
    order, numbers = random.Random(0), list(range(len(cases)))
    for _ in range(args.repeats):
        order.shuffle(numbers)
        for number in numbers:
            time_step(cases[number], steps[number], args)
    return cases


def measure_data(args: argparse.Namespace) -> dict[str, float]:
    """Train EDSR on a folder's images with one loader process; return an iteration's seconds and share of waiting."""
    with tempfile.TemporaryDirectory() as folder:
        hr, lr = f'dataroot_gt={args.data.absolute()}', f'lq_cache={folder}/LR'
        data = (hr, lr, 'dataroot_lq=null', 'filename_tmpl=null', 'num_worker_per_gpu=1')
        overrides = [f'path:experiments_root={folder}', f'path:tb_root={folder}', 'datasets:val=null']
        overrides += [f'train:total_iter={WARM_UP + args.iterations}', *(f'datasets:train:{option}' for option in data)]
        trainer = Trainer(method_options('EDSR', args.settings[0], args, overrides), Console(quiet=True), Processes())
        waited = start = asked = 0.0
        for iteration, batch in enumerate(trainer.loader, start=1):
            waited += time.perf_counter() - asked
            trainer.model.feed_data(batch)
            trainer.model.optimize_parameters(iteration)
            if iteration == WARM_UP:  # the start of the loader is no iteration's
                synchronize(args)
                waited, start = 0.0, time.perf_counter()
            asked = time.perf_counter()
        synchronize(args)
        total = time.perf_counter() - start
    return {'seconds': total / args.iterations, 'share_waiting': waited / total}


def ratio(case: Case, other: Case) -> float:
    """Return the ratio of two cases' seconds: the median over the repeats."""
    return statistics.median(mine / its for mine, its in zip(case.seconds, other.seconds, strict=True))


def describe(case: Case, cases: Sequence[Case]) -> dict[str, Any]:
    """Return a case and what its seconds come to."""
    median = statistics.median(case.seconds)
    plain = [other for other in cases if other.method == CONVOLUTION and other.precision == case.precision]
    fastest = min(plain, key=lambda other: statistics.median(other.seconds), default=None)
    return {
        **asdict(case),
        'median': median,
        'min': min(case.seconds),
        'x_basicsr': ratio(case, cases[0]),
        'flop_per_s': case.flops / median,
        'share': None if fastest is None else case.flops / fastest.flops / ratio(case, fastest),
    }


def find_bars(cases: Sequence[Case], data: dict[str, float] | None) -> list[dict[str, Any]]:
    """Hold the ratios against the bars that the project has set itself, as far as their cases were measured."""
    basicsr = cases[0]
    found = {(case.method, case.setting): case for case in cases}
    edsr, ds, clsd = (found.get((method, 'fp32')) for method in ('EDSR', 'DS', 'CLSD'))
    fast = found.get(('EDSR', 'bf16+channels_last'))
    bars = []
    if clsd and ds:
        bars.append(('CLSD / DS', ratio(clsd, ds), 'at most', 1.03))
    if ds and edsr:
        bars.append(('DS / EDSR / ratio of their FLOPs', ratio(ds, edsr) * edsr.flops / ds.flops, 'at most', 1.05))
    if fast:
        bars.append(('BasicSR / EDSR in bf16+channels_last', ratio(basicsr, fast), 'at least', 1.8))
    if edsr:
        bars.append(('EDSR / BasicSR', ratio(edsr, basicsr), 'at most', 1.0))
    if data:
        bars.append(('waiting for data / iteration', data['share_waiting'], 'at most', 0.03))
    return [
        {'bar': name, 'measured': value, 'limit': f'{side} {limit}', 'met': (value <= limit) == (side == 'at most')}
        for name, value, side, limit in bars
    ]


def compare_with_paper(cases: Sequence[Case], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Hold the methods' steps against the paper's training times, in each setting."""
    rows = []
    for setting in args.settings:
        found = {case.method: case for case in cases if case.method in METHODS and case.setting == setting}
        seconds = {method: statistics.median(case.seconds) for method, case in found.items()}
        rows += compare(seconds, lambda one, other, found=found: ratio(found[one], found[other]), setting, args.batch)
    return rows


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is measured on and how."""
    return {
        'torch': torch.__version__,
        'device_name': torch.cuda.get_device_name() if args.device == 'cuda' else cpu_name(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'cores': len(os.sched_getaffinity(0)),
        'load': os.getloadavg()[0],
        'command': ' '.join(['python', *sys.argv]),
        **vars(args),
    }


def print_report(report: dict[str, Any]) -> None:
    """Print the machine, the table and the bars as Markdown."""
    where, data = argparse.Namespace(**report['machine']), report['data']
    print(
        f'torch {where.torch}, {where.device_name}, {where.cores} cores ({where.instructions}, load {where.load:.1f}), '
        f'{where.threads} threads, x{where.scale}, batch {where.batch}, {where.repeats} repeats: `{where.command}`\n'
    )
    print('| method | setting | s/step | min | x BasicSR | peak MiB | GFLOP | GFLOP/s | share |')
    print('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
    for row in report['cases']:
        peak = '' if row['peak_bytes'] is None else f'{row["peak_bytes"] / 2**20:,.0f}'
        share = '' if row['share'] is None else f'{row["share"]:.0%}'
        print(
            f'| {row["method"]} | {row["setting"]} | {row["median"]:.4f} | {row["min"]:.4f} | {row["x_basicsr"]:.3f} '
            f'| {peak} | {row["flops"] / 1e9:,.1f} | {row["flop_per_s"] / 1e9:,.1f} | {share} |'
        )
    if data:
        print(f'\nWith the loader {data["seconds"]:.4f} s an iteration, {data["share_waiting"]:.2%} waiting for data.')
    print_table(report['paper'], where.batch)
    print('\n| bar: steps in fp32 on 2 CPU cores | limit | measured | |\n| --- | ---: | ---: | --- |')
    for bar in report['bars']:
        print(f'| {bar["bar"]} | {bar["limit"]} | {bar["measured"]:.3f} | {"met" if bar["met"] else "not met"} |')


def parse() -> argparse.Namespace:
    """Parse the command line, and settle what depends on the device."""
    parser = argparse.ArgumentParser(description='Seconds, memory and FLOP/s of a training step of each method.')
    parser.add_argument('--scale', type=int, choices=[2, 3, 4], default=4)
    parser.add_argument('--batch', type=int, help='images in the batch; default 16 on a GPU, 4 on a CPU')
    parser.add_argument('--repeats', type=int, default=9, help='timed turns of each case')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="torch's threads on the CPU")
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, help='default: those that suit the device')
    parser.add_argument('--compile', action='store_true', help='compiled settings by default on a CPU too')
    parser.add_argument('--data', type=Path, help='folder of HR images: measure the waiting for data too')
    parser.add_argument('--iterations', type=int, default=30, help='iterations for that')
    parser.add_argument('--json', type=Path, help='write every number to this file')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    on_gpu = args.device == 'cuda'
    args.batch = args.batch or (16 if on_gpu else 4)
    if args.settings is None:
        precisions = PRECISIONS if on_gpu else ('fp32', 'bf16')
        switches = ['', '+channels_last'] + ['+channels_last+compile'] * (on_gpu or args.compile)
        args.settings = [precision + rest for precision in precisions for rest in switches]
    return args


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = parse()
    torch.set_num_threads(args.threads)
    if any('compile' in setting for setting in args.settings):
        # To the compiler all networks are one function, which it would give up on after a few settings.
        torch._dynamo.config.recompile_limit = 256
    where = machine(args)
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        write_teachers(args)
        cases = measure(args)
    data = measure_data(args) if args.data else None
    rows = [describe(case, cases) for case in cases]
    paper = compare_with_paper(cases, args)
    report = {'machine': where, 'cases': rows, 'paper': paper, 'data': data, 'bars': find_bars(cases, data)}
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2, default=str) + '\n')


if __name__ == '__main__':
    main()
