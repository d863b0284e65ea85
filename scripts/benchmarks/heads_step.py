"""What heads cost in a training step of other students than EDSR, in seconds and in FLOPs.

    python benchmarks/heads_step.py --threads 2 --repeats 9
    python benchmarks/heads_step.py --students small/RCAN small/SwinIR small/SRVGG --scale 2 --batch 8 --patch 24

Each student takes a step (`feed_data` and `optimize_parameters` on a random batch) by its shipped options, with CLSD's
heads and losses, and without: alone, by L_SR. The two take turns, in an order drawn anew each time; the ratio is the
median of those within a repeat. FLOPs are those of convolutions and products, forward and backward, by
`torch.utils.flop_counter`: where a step costs what its FLOPs cost, both ratios are the same.
"""

import argparse
import json
import random
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from measuring import seconds
from torch.utils.flop_counter import FlopCounterMode

from basicsr_clsd.config import Options, check, load
from basicsr_clsd.config.paths import SHIPPED_OPTIONS
from basicsr_clsd.engine.build import build_model
from basicsr_clsd.models import SupervisedModel
from basicsr_clsd.runtime.memory import keep_freed_memory

STUDENTS = ('RCAN', 'SwinIR_light', 'MSRResNet', 'SRVGG', 'ECBSR', 'small/RCAN', 'small/SwinIR', 'small/SRVGG')
WARM_UP = 2  # steps; the optimizer has its state after the first


@dataclass
class Case:
    """A student's step with heads, or without: what it costs."""

    student: str
    heads: bool
    parameters: int
    flops: int
    seconds: list[float] = field(default_factory=list)


def student_options(student: str, heads: bool, args: argparse.Namespace) -> Options:
    """Load a student's options, or what is left of them without heads."""
    folder, _, name = student.rpartition('/')
    overrides = [f'num_gpu={int(args.device == "cuda")}', f'datasets:train:batch_size_per_gpu={args.batch}']
    overrides += [f'datasets:train:gt_size={args.patch * args.scale}', 'train:precision=fp32']
    options = load(SHIPPED_OPTIONS / folder / f'train_CLSD_{name}_x{args.scale}.yml', overrides)
    if not heads:
        values = options.as_dict()
        values['network_g'] = values['network_g']['student']
        values['model_type'] = 'SupervisedModel'
        values['train'] = {
            key: value for key, value in values['train'].items() if key not in ('aux_opt', 'contrastive_opt')
        }
        options = Options.model_validate(values)
    check(options)
    return options


def build(student: str, heads: bool, args: argparse.Namespace) -> tuple[Case, SupervisedModel, dict[str, torch.Tensor]]:
    """Build a student, count its FLOPs, and warm it up on its batch."""
    options = student_options(student, heads, args)
    torch.manual_seed(0)
    model = build_model(options)
    channels = 1 if options.datasets['train'].color == 'y' else 3
    sides = {'lq': args.patch, 'gt': args.patch * args.scale}
    batch = {name: torch.rand(args.batch, channels, side, side) for name, side in sides.items()}
    with FlopCounterMode(display=False) as counter:
        take_step(model, batch)
    for _ in range(WARM_UP - 1):
        take_step(model, batch)
    count = sum(parameter.numel() for parameter in model.net_g.parameters())
    return Case(student, heads, count, counter.get_total_flops()), model, batch


def take_step(model: SupervisedModel, batch: dict[str, torch.Tensor]) -> None:
    """Take a training step."""
    model.feed_data(batch)
    model.optimize_parameters(1)


def measure(student: str, args: argparse.Namespace) -> tuple[Case, Case]:
    """Time a student's steps without heads and with them."""
    built = [build(student, heads, args) for heads in (False, True)]
    order, device = random.Random(0), torch.device(args.device)
    for _ in range(args.repeats):
        for case, model, batch in order.sample(built, len(built)):
            case.seconds.append(seconds(lambda model=model, batch=batch: take_step(model, batch), device))
    (plain, *_), (heads, *_) = built
    return plain, heads


def row(plain: Case, heads: Case) -> str:
    """A row of the table."""
    ratio = statistics.median(mine / its for mine, its in zip(heads.seconds, plain.seconds, strict=True))
    flops = heads.flops / plain.flops
    return (
        f'| {plain.student} | {plain.parameters:,} | {heads.parameters - plain.parameters:,} '
        f'| {statistics.median(plain.seconds):.3f} | {statistics.median(heads.seconds):.3f} | {ratio:.2f} '
        f'| {plain.flops / 1e9:,.1f} | {heads.flops / 1e9:,.1f} | {flops:.2f} | {ratio / flops:.2f} |'
    )


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description='What heads cost in a training step of other students than EDSR.')
    parser.add_argument('--students', nargs='+', choices=STUDENTS, default=list(STUDENTS[:5]))
    parser.add_argument('--scale', type=int, choices=[2, 4], default=4)
    parser.add_argument('--batch', type=int, default=2, help='images in the batch')
    parser.add_argument('--patch', type=int, default=48, help='side of the LR patch, a multiple of 8 for SwinIR')
    parser.add_argument('--repeats', type=int, default=9, help='timed turns of each')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="torch's threads on the CPU")
    parser.add_argument('--json', type=Path, help='write every number to this file')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory(args.device == 'cpu')
    where = f'torch {torch.__version__}, {args.device}, {args.threads} threads'
    print(f'{where}, x{args.scale}, {args.batch} LR patches of {args.patch}, {args.repeats} repeats\n')
    print('| student | parameters | in heads | s/step | with heads | ratio | GFLOP | with heads | ratio | s / FLOP |')
    print('| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
    cases = []
    for student in args.students:
        pair = measure(student, args)
        print(row(*pair), flush=True)
        cases += pair
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in cases], indent=2) + '\n')


if __name__ == '__main__':
    main()
