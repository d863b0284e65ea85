r"""Megapixels of output per second, and memory, of the ways to run a trained network, beside BasicSR's own.

    python scripts/benchmarks/inference.py --threads 2 --repeats 5 --calibrate datasets/BSDS400 --json inference.json
    python scripts/benchmarks/inference.py --device cuda --json inference.json

BasicSR's way is its `EDSR` in fp32 on the whole image; the others are this project's: `Upscaler` as `infer.py` has it
(tiles of 512 where the image is larger), the same on the whole image, and in bf16, and ONNX files by onnxruntime in
fp32 and int8, and by OpenVINO where that is installed: in f32, in bf16, which is its default on processors that have
it, and int8 with the rest in f32. On a GPU there are those of torch alone. All get the same uint8 images and give uint8
images.
The ways take turns within each repeat, in an order drawn anew each time, so that whatever else the machine does falls
on all of them; ratios are medians, over the repeats, of those within a repeat.
- **Peak memory**: of a fresh process, beyond what it has once it has upscaled a tiny image: its resident size, or what
  torch has allocated on the GPU.
- **Largest difference** to BasicSR's output, in steps of 8 bits.
- **PSNR** (`--psnr`): on Y, of each way on the images of test folders, HR:LR; for bf16 and int8 what the speed costs.
Without `--model` weights are drawn at random: they take the same time, but say nothing about PSNR, and int8 is made
with what is in `--calibrate` all the same.
"""

import argparse
import json
import multiprocessing
import os
import random
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from inference_ways import BASICSR, BF16, DEFAULT, IN_FP32, INT8, WAYS, Image, Run, build, ways, write_files
from measuring import cpu_name, seconds

from basicsr_clsd import Upscaler
from basicsr_clsd.runtime.memory import keep_freed_memory, process_peak, reset_process_peak

SIZES = ('320x240', '1280x720')
WARM_UP = (8, 8, 3)


@dataclass
class Case:
    """A way to upscale at a scale and a size."""

    way: str
    scale: int
    size: str
    peak_bytes: int = 0
    difference: float = 0.0  # to BasicSR's output, in steps of 8 bits
    seconds: list[float] = field(default_factory=list)


def photo(size: str) -> Image:
    """Return a random smooth image of a size WxH."""
    width, height = map(int, size.split('x'))
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def memory_growth(case: Case, args: argparse.Namespace) -> int:
    """Return by how much the memory of a fresh process, or its memory on the GPU, grows at most, upscaling once."""
    on_gpu = args.device == 'cuda'
    reset, peak = (
        (torch.cuda.reset_peak_memory_stats, torch.cuda.max_memory_allocated)
        if on_gpu
        else (reset_process_peak, process_peak)
    )
    run = build(case.way, case.scale, args)
    run(photo('{1}x{0}'.format(*WARM_UP)))
    reset()
    before = peak()
    run(photo(case.size))
    return peak() - before


def measure(scale: int, args: argparse.Namespace) -> Iterator[list[Case]]:
    """Measure all ways at a scale, size after size."""
    write_files(scale, args)
    device = torch.device(args.device)
    order = random.Random(0)
    runs = {way: build(way, scale, args) for way in ways(args)}
    for size in args.sizes:
        cases, image = [Case(way, scale, size) for way in runs], photo(size)
        expected = runs[BASICSR](image).astype(int)
        for case in cases:
            if sys.platform == 'linux':
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
                    case.peak_bytes = process.submit(memory_growth, case, args).result()
            case.difference = float(np.abs(runs[case.way](image) - expected).max())
        for _ in range(args.repeats):
            order.shuffle(cases)
            for case in cases:
                keep_freed_memory(case.way != BASICSR)
                case.seconds.append(seconds(lambda case=case, image=image: runs[case.way](image), device))
        yield sorted(cases, key=lambda case: WAYS.index(case.way))


def ratio(case: Case, cases: list[Case]) -> float:
    """Return how many times as fast as BasicSR's a way is, among those of its scale and size: a median of repeats."""
    (basicsr,) = (other for other in cases if other.way == BASICSR)
    return statistics.median(its / mine for mine, its in zip(case.seconds, basicsr.seconds, strict=True))


def describe_case(case: Case, cases: list[Case]) -> dict[str, Any]:
    """Return a case and what its seconds come to."""
    width, height = (int(side) * case.scale for side in case.size.split('x'))
    speed = width * height / 1e6 / statistics.median(case.seconds)
    return {**asdict(case), 'megapixels_per_s': speed, 'x_basicsr': ratio(case, cases)}


def mean_psnr(run: Run, pairs: str, scale: int) -> float:
    """Return the mean PSNR on Y over the images of HR:LR, paired by their order."""
    from basicsr.metrics import calculate_psnr  # noqa: PLC0415

    folders = [sorted(path for path in Path(part).iterdir() if path.suffix == '.png') for part in pairs.split(':')]
    values = []
    for hr, lr in zip(*folders, strict=True):
        gt, lq = cv2.imread(str(hr)), cv2.imread(str(lr))
        assert gt is not None and lq is not None
        sr = run(np.ascontiguousarray(lq[..., ::-1], np.uint8))[..., ::-1]
        height, width = sr.shape[:2]
        values.append(calculate_psnr(sr, gt[:height, :width], crop_border=scale, test_y_channel=True))
    return float(np.mean(values))


def find_bars(rows: list[dict[str, Any]], psnr: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the ratios against the bars that the project has set itself."""
    bars = []
    for scale, size in dict.fromkeys((row['scale'], row['size']) for row in rows):
        here = [row for row in rows if (row['scale'], row['size']) == (scale, size)]
        by_way = {row['way']: row['x_basicsr'] for row in here}
        equal = [row['x_basicsr'] for row in here if row['difference'] <= 1 and row['way'] in IN_FP32]
        found = [('default', by_way.get(DEFAULT), 1.0), ('fastest equal to fp32', max(equal, default=None), 1.25)]
        found.append(('bf16', by_way.get(BF16), 2.0))
        bars += [
            {'bar': f'x{scale}, {size}: {name}, x BasicSR', 'limit': limit, 'measured': value, 'met': value >= limit}
            for name, value, limit in found
            if value is not None
        ]
    for row in psnr:
        if row['way'] == INT8:
            bar = f'{row["set"]}: int8, dB of fp32'
            bars.append({'bar': bar, 'limit': -0.1, 'measured': row['change'], 'met': row['change'] >= -0.1})  # noqa: PLR2004
    return bars


def print_machine(where: dict[str, Any]) -> None:
    """Print what is measured on, and the head of the first table, as Markdown."""
    print(
        f'torch {where["torch"]}, {where["device"]}, {where["cpu"]}, {where["cores"]} cores '
        f'({where["instructions"]}, load {where["load"]:.1f}), {where["threads"]} threads, '
        f'{where["repeats"]} repeats: `{where["command"]}`\n'
    )
    print('| scale | input | way | MP/s | x BasicSR | peak MiB | largest difference |')
    print('| --- | --- | --- | ---: | ---: | ---: | ---: |', flush=True)


def print_case(row: dict[str, Any]) -> None:
    """Print a row of the first table."""
    print(
        f'| x{row["scale"]} | {row["size"]} | {row["way"]} | {row["megapixels_per_s"]:.3f} | '
        f'{row["x_basicsr"]:.3f} | {row["peak_bytes"] / 2**20:,.0f} | {row["difference"]:.0f} |',
        flush=True,
    )


def print_rest(report: dict[str, Any]) -> None:
    """Print the other tables."""
    if report['psnr']:
        print('\n| set | way | PSNR on Y | change |\n| --- | --- | ---: | ---: |')
        for row in report['psnr']:
            print(f'| {row["set"]} | {row["way"]} | {row["psnr"]:.4f} | {row["change"]:+.4f} |')
    print('\n| bar | at least | measured | |\n| --- | ---: | ---: | --- |')
    for bar in report['bars']:
        print(f'| {bar["bar"]} | {bar["limit"]} | {bar["measured"]:.3f} | {"met" if bar["met"] else "not met"} |')


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Speed and memory of the ways to run a trained network.')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu', help='where torch computes (default: cpu)')
    parser.add_argument('--scales', nargs='+', type=int, default=[2, 4])
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), metavar='WxH', help='of the input')
    parser.add_argument('--model', help="weights, of one of the scales; default random ones of the paper's student")
    parser.add_argument('--width', type=int, default=64, help='channels of random weights')
    parser.add_argument('--blocks', type=int, default=16, help='blocks of random weights')
    parser.add_argument('--ways', nargs='+', choices=WAYS, metavar='WAY', help='some of the ways alone')
    parser.add_argument('--tile', type=int, help='of the Upscaler; default its own')
    parser.add_argument('--repeats', type=int, default=5, help='timed turns of each way')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--calibrate', type=Path, metavar='FOLDER', help='photos to make int8 by; without, no int8')
    parser.add_argument('--psnr', nargs='+', default=[], metavar='HR:LR', help='folders to measure PSNR on')
    parser.add_argument('--json', type=Path, help='write every number to this file')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('torch finds no GPU')
    return args


def main() -> None:
    """Measure, print the tables, write the JSON."""
    args = parse()
    torch.set_num_threads(args.threads)
    if args.model:
        args.scales = [Upscaler(args.model, gpu=False).scale]
    command = shlex.join(['python', *sys.argv])
    where = {
        'torch': torch.__version__,
        'device': torch.cuda.get_device_name() if args.device == 'cuda' else 'CPU',
        'cpu': cpu_name(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'cores': len(os.sched_getaffinity(0)),
        'load': os.getloadavg()[0],
        'threads': args.threads,
        'repeats': args.repeats,
        'command': command,
    }
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        print_machine(where)
        rows: list[dict[str, Any]] = []
        for cases in (cases for scale in args.scales for cases in measure(scale, args)):
            rows += [describe_case(case, cases) for case in cases]
            for row in rows[-len(cases) :]:
                print_case(row)
        psnr: list[dict[str, Any]] = []
        for pairs in args.psnr:
            fp32 = 0.0
            for way in (way for way in (BASICSR, BF16, INT8) if way in ways(args)):
                value = mean_psnr(build(way, args.scales[0], args), pairs, args.scales[0])
                fp32 = fp32 or value
                psnr.append({'set': pairs.split(':')[0], 'way': way, 'psnr': value, 'change': value - fp32})
    report = {'machine': where, 'cases': rows, 'psnr': psnr, 'bars': find_bars(rows, psnr)}
    print_rest(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2, default=str) + '\n')


if __name__ == '__main__':
    main()
