"""Seconds, memory and FLOP/s of a training step of each method, beside BasicSR's own SRModel doing EDSR's work.

    python benchmarks/train_step.py --threads 2 --repeats 9 --json step.json --data datasets/BSDS400

A step is `feed_data` and `optimize_parameters` on a random batch, with a method's shipped options and the overrides of
a setting: a precision and switches, as in `bf16+channels_last+compile`. On a CPU compiling needs a C++ compiler, and
bf16 takes several times as long as fp32 where the CPU has no instructions for it: leave it out by `--settings`.
The cases take turns within each repeat, in an order drawn anew each time, so that whatever else the machine does, and
what a case leaves in the caches, falls on all of them; ratios are medians, over the repeats, of those within a repeat.
With `--one-at-a-time`, as on a GPU, only one case and BasicSR take turns. Then the next case is built: memory is needed
for two models. Ratios of two cases are of what each takes beside BasicSR.
- **Peak memory**: on CUDA of what is allocated in a step, weights and optimizer state included; on a CPU of a fresh
  process's resident size, beyond what it has after steps of a tiny network (what the allocator keeps, and the
  compiler's own, included).
- **FLOPs**: of convolutions and products, forward and backward, by `torch.utils.flop_counter`.
- **Share**: of the FLOP/s of a plain 3x3 convolution of 256 channels, forward and backward, in the same precision and
  the memory format that suits it better.
- **The paper's Table 6**: an iteration of each method against CLSD's, and the hours that its schedule would take on
  this machine, with those of the teacher (`EDSR_L`) where there is one. Here teachers have random weights.
- **Waiting for data** (`--data`): EDSR's step in the first setting, fed by the training engine's loader with one
  process; LR images are made in a temporary folder first.
The cuDNN flags and, on a CPU, the C library's allocator are set as the engine sets them; for BasicSR as its train.py
does, which leaves the allocator alone. BasicSR's precision is its users': TensorFloat-32 on a GPU, the setting `tf32`.
"""

import argparse
import gc
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from measuring import cpu_name
from rich.console import Console
from step_report import Case, compare_with_paper, describe, find_bars, print_report
from torch.utils.flop_counter import FlopCounterMode
from training_steps import BASICSR, CONVOLUTION, METHODS, TINY, Step, build_step, method_options, write_teachers

from basicsr_clsd.engine.trainer import Trainer
from basicsr_clsd.runtime import cudnn
from basicsr_clsd.runtime.distributed import Processes
from basicsr_clsd.runtime.memory import keep_freed_memory, process_peak, reset_process_peak

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')
SWITCHES = ('', '+channels_last', '+compile', '+channels_last+compile')
SETTINGS = [precision + switches for precision in PRECISIONS for switches in SWITCHES]
ON_GPU = ('fp32', 'tf32', 'bf16+channels_last', 'bf16+channels_last+compile')  # by default
WARM_UP = 2  # steps; the optimizer has its state after the first


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
    """Measure all cases, BasicSR's first."""
    precisions = dict.fromkeys(setting.split('+')[0] for setting in args.settings)
    names = [(BASICSR, 'tf32'), (BASICSR, 'fp32')] if args.device == 'cuda' else [(BASICSR, 'fp32')]
    names += [(method, setting) for method in args.methods for setting in args.settings]
    names += [(CONVOLUTION, precision + rest) for precision in precisions for rest in ('', '+channels_last')]
    flops = {}
    for method in dict(names):
        flops[method] = count_flops(build_step(method, 'fp32', args))
        gc.collect()  # models refer to themselves
    basicsr, *cases = [Case(method, setting, flops[method]) for method, setting in names]
    first = prepare(basicsr, args)
    order = random.Random(0)
    for group in [[case] for case in cases] if args.one_at_a_time else [cases]:
        take_turns(basicsr, first, group, order, args)
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()  # nothing without CUDA
    basicsr.baseline = basicsr.seconds
    return [basicsr, *cases]


def take_turns(
    basicsr: Case, first: Step, group: Sequence[Case], order: random.Random, args: argparse.Namespace
) -> None:
    """Time BasicSR and a group of cases, which are there for that time only."""
    turns = [(basicsr, first), *((case, prepare(case, args)) for case in group)]
    for _ in range(args.repeats):
        order.shuffle(turns)
        for case, step in turns:
            time_step(case, step, args)
    for case in group:
        case.baseline = basicsr.seconds[-args.repeats :]


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


def parse() -> argparse.Namespace:
    """Parse the command line, and settle what depends on the device."""
    parser = argparse.ArgumentParser(description='Seconds, memory and FLOP/s of a training step of each method.')
    parser.add_argument('--scale', type=int, choices=[2, 3, 4], default=4)
    parser.add_argument('--batch', type=int, help='images in the batch; default 16 on a GPU, 4 on a CPU')
    parser.add_argument('--repeats', type=int, help='timed turns of each case; default 5 on a GPU, 9 on a CPU')
    parser.add_argument('--one-at-a-time', action='store_true', help='memory for two models is enough; so on a GPU')
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
    args.repeats = args.repeats or (5 if on_gpu else 9)
    args.one_at_a_time = args.one_at_a_time or on_gpu
    if args.settings is None:
        switches = ['', '+channels_last'] + ['+channels_last+compile'] * args.compile
        args.settings = ON_GPU if on_gpu else [precision + rest for precision in ('fp32', 'bf16') for rest in switches]
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
